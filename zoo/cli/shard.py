"""`zoo data shard`: writes a dataset as tar files that a training run reads from anywhere."""

from __future__ import annotations

from argparse import Namespace

from zoo.cli.progress import Meter
from zoo.errors import EXIT_OK, UsageError, unknown_name


def run(arguments: Namespace) -> int:
    """Writes one split, or all of them.

    Args:
        arguments: `dataset`, `root`, `split`, `size`, `out`, `limit`, `samples_per_shard`, and `option`, names and
            values of the dataset's own options.

    Raises:
        UsageError: No place to write to, shards that are there already, or an unknown split or option.
        DataError: The dataset cannot be read, or the place cannot be written to.
    """
    from zoo.data import SPLITS, open_dataset
    from zoo.data.info import parse_options
    from zoo.data.shard_writer import write_shards

    if arguments.out is None:
        raise UsageError("zoo data shard needs a place to write to", remedy="name a folder or a URL: --out DIR|URL")
    if arguments.split not in (*SPLITS, "all"):
        raise unknown_name("split", arguments.split, [*SPLITS, "all"])
    options = parse_options(arguments.dataset, arguments.option)
    for split in SPLITS if arguments.split == "all" else (arguments.split,):
        dataset = open_dataset(
            arguments.dataset,
            split=split,
            size=arguments.size,
            root=arguments.root,
            count=arguments.limit,
            **options,
        )
        with Meter(f"shard {split}", len(dataset), seconds=10.0) as meter:
            index = write_shards(
                dataset,
                arguments.out,
                split=split,
                size=arguments.size,
                samples_per_shard=arguments.samples_per_shard,
                progress=meter.update,
            )
        samples, shards = f"{len(index.ids)} samples of {index.dataset}", f"{len(index.shards)} shards"
        megabytes = sum(shard.size for shard in index.shards) / 1e6
        print(f"{split}: {samples} at {index.size} pixels in {shards}, {megabytes:.1f} MB")
    print(f"use them: --data shards --data.root {arguments.out} --data.size {arguments.size}")
    return EXIT_OK
