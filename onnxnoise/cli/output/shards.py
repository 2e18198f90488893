"""The lines that `bench --shard` and `merge` print: how far the work is, and what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from onnxnoise.noise.models import headline
from onnxnoise.text import counted, safe

if TYPE_CHECKING:
    from onnxnoise.results.run_file.merge import Merged
    from onnxnoise.run.runner import Shard


def shard_done(console: Console, shard: Shard) -> None:
    """Print how far one shard's run is; it has no result of its own."""
    console.print(headline(shard.noise))
    console.print(
        f"shard {shard.number}/{shard.count} done: {shard.images:,} of {shard.images_in_all:,} images, "
        f"in {safe(str(shard.path))}",
    )
    console.print(
        f"when all {shard.count} are: `onnxnoise merge` joins their run files, and the same command without --shard, with "
        "--out naming the joined file, shows the result",
    )


def merged(console: Console, joined: Merged) -> None:
    """Print how many tallies came from each run file that was joined, and what is still missing."""
    console.print(headline(joined.noise))
    for path, tallies, known in joined.sources:
        again = f" ({known:,} there already)" if known else ""
        console.print(f"{safe(str(path))}: {tallies:,} tallies{again}")
    console.print(
        f"{safe(str(joined.path))}: {joined.tallies:,} tallies on {joined.images:,} images in {counted(joined.chunks, 'chunk')}",
    )
    if joined.empty:
        first = joined.empty[0]
        console.print(
            f"nothing is measured on {len(joined.empty)} of the chunks (the first: images {first.start} to {first.stop - 1}): "
            "is a shard missing?",
        )
