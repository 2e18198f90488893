"""A noise profile on a Slurm cluster: dask-jobqueue asks Slurm for workers, onnxnoise hands them the work.

    pip install 'onnxnoise[cluster]' dask-jobqueue          # on the login node and, the same versions, on the compute nodes
    python slurm.py /shared/resnet50.onnx --card /shared/imagenet.toml --data /shared/imagenet/val --workers 8 --partition gpu

Run it where Slurm's `sbatch` works. Model, card and images must be under the same paths on every node; their digests are
checked there. Interrupt it whenever you like: the run file keeps what is measured, and the same command goes on.
"""

from __future__ import annotations

import argparse
import sys

from dask_jobqueue import SLURMCluster

from onnxnoise import BenchSpec, OnnxNoiseError, bench, to_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--card")
    parser.add_argument("--data")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--out", default="profile.sqlite")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--partition")
    parser.add_argument("--cores", type=int, default=8, help="of each worker")
    parser.add_argument("--memory", default="16GB", help="of each worker")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    options = parser.parse_args()

    resources = (("GPU", 1.0),) if options.gpu else ()
    with SLURMCluster(
        queue=options.partition,
        cores=options.cores,
        processes=1,  # one worker process a job: it uses all its cores, or its GPU
        memory=options.memory,
        walltime=options.walltime,
        job_extra_directives=["--gres=gpu:1"] if options.gpu else [],
        worker_extra_args=["--resources", "GPU=1"] if options.gpu else [],
    ) as cluster:
        cluster.scale(jobs=options.workers)
        print(f"scheduler {cluster.scheduler_address}; waiting for Slurm to start a worker", file=sys.stderr)
        cluster.wait_for_workers(1)
        spec = BenchSpec(
            options.model,
            card=options.card,
            data=options.data,
            draws=options.draws,
            out=options.out,
            provider="cuda" if options.gpu else "cpu",
            cluster=cluster.scheduler_address,
            resources=resources,
        )
        try:
            print(to_json(bench(spec)), end="")
        except OnnxNoiseError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
