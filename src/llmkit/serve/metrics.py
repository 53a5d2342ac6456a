"""What the server counts, for Prometheus; the figures that dashboards of vLLM read have its names too."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmkit.engines.inference.contract import ServingEngine

SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)
ALIASES = {
    "llmkit_time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "llmkit_inter_token_latency_seconds": "vllm:inter_token_latency_seconds",
    "llmkit_request_seconds": "vllm:e2e_request_latency_seconds",
}


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, engine: ServingEngine, model: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine, model))
        own = CollectorRegistry()
        self._requests = Counter(
            "llmkit_http_requests", "Requests that were answered.", ["method", "route", "status"], registry=own
        )
        first, between, whole = (
            Histogram(name, text, ["model_name"], buckets=SECONDS, registry=own)
            for name, text in (
                ("llmkit_time_to_first_token_seconds", "Seconds from a request to its first token."),
                ("llmkit_inter_token_latency_seconds", "Seconds between tokens of a completion."),
                ("llmkit_request_seconds", "Seconds from a request to its last token."),
            )
        )
        # Bound once: looking a label up costs more than counting.
        self.time_to_first_token = first.labels(model)
        self.inter_token_latency = between.labels(model)
        self.request_seconds = whole.labels(model)
        self._registry.register(_WithAliases(own))

    def count(self, method: str, route: str, status: int) -> None:
        """One request was answered; 499 stands for a client that went away."""
        self._requests.labels(method, route, str(status)).inc()

    def text(self) -> bytes:
        """Everything in the exposition format."""
        return generate_latest(self._registry)


class _WithAliases(Collector):
    """Metrics under their own names and under those of vLLM."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Read the metrics now."""
        for metric in self._registry.collect():
            yield metric
            if alias := ALIASES.get(metric.name):
                yield _renamed(metric, alias)


class _EngineCollector(Collector):
    """What an engine says of itself when it is asked."""

    def __init__(self, engine: ServingEngine, model: str) -> None:
        self._engine = engine
        self._model = model

    def collect(self) -> Iterable[Metric]:
        """Read the engine's figures now."""
        stats = self._engine.stats()
        gauges = {
            "llmkit_requests_running": ("Completions that are being drawn.", stats.num_running),
            "vllm:num_requests_running": ("Completions that are being drawn.", stats.num_running),
            "llmkit_requests_waiting": ("Completions that wait for their turn.", stats.num_waiting),
            "vllm:num_requests_waiting": ("Completions that wait for their turn.", stats.num_waiting),
            "llmkit_kv_cache_use": ("Share of the KV cache that is held, 0 to 1.", stats.cache_use),
            "vllm:kv_cache_usage_perc": ("Share of the KV cache that is held, 0 to 1.", stats.cache_use),
            "llmkit_weights_version": ("Version of the weights.", self._engine.version),
        }
        counters = {
            "llmkit_prompt_tokens": ("Tokens of prompts.", stats.num_prompt_tokens),
            "vllm:prompt_tokens": ("Tokens of prompts.", stats.num_prompt_tokens),
            "llmkit_cached_tokens": ("Tokens of prompts that the prefix cache had.", stats.num_cached_tokens),
            "vllm:prefix_cache_queries": ("Tokens looked up in the prefix cache.", stats.num_prompt_tokens),
            "vllm:prefix_cache_hits": ("Tokens found in the prefix cache.", stats.num_cached_tokens),
            "llmkit_generation_tokens": ("Tokens that were drawn.", stats.num_generated_tokens),
            "vllm:generation_tokens": ("Tokens that were drawn.", stats.num_generated_tokens),
            "llmkit_preemptions": ("Completions that gave up their cache.", stats.num_preemptions),
            "vllm:num_preemptions": ("Completions that gave up their cache.", stats.num_preemptions),
        }
        for kind, figures in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counters)):
            for name, (text, value) in figures.items():
                family = kind(name, text, labels=["model_name"])
                family.add_metric([self._model], value)
                yield family


def _renamed(metric: Metric, name: str) -> Metric:
    alias = Metric(name, metric.documentation, metric.type)
    for sample in metric.samples:
        alias.add_sample(sample.name.replace(metric.name, name, 1), sample.labels, sample.value)
    return alias
