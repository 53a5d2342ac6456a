"""JSON Lines to Parquet as `datasets` does it: `python datasets_parquet.py SOURCE TARGET CACHE`."""

import sys


def main() -> None:
    """Read, and write."""
    import datasets

    source, target, cache = sys.argv[1:]
    datasets.disable_progress_bars()
    datasets.load_dataset("json", data_files=source, split="train", cache_dir=cache).to_parquet(target)


if __name__ == "__main__":
    main()
