import llmkit_example

from llmkit.testing.adapter import AdapterContract


class TestAdapter(AdapterContract):
    name = "example_name"

    def test_matrices_are_frozen(self):
        model = llmkit_example.build(llmkit_example.Config()).attach(self.base_model())
        trained = [parameter.dim() for parameter in model.parameters() if parameter.requires_grad]
        assert set(trained) == {1}
