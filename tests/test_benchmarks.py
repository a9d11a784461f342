"""The benchmark of the detector runs on a toy network: what is tested is that it tells, not what."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import ALONE

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "detector.py"


def run(*words: str, script: Path = SCRIPT) -> str:
    arguments = [sys.executable, str(script), "--small", "--rounds", "1", *words]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=900, env=ALONE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_runs_on_a_toy_network_the_gpu_part_too():
    told = run("--only", "whole", "dense", "gpu")
    assert "load average" in told.splitlines()[0]
    assert re.search(r"9418 nodes: \d+ boxes pass objectness, [1-9]\d* kept", told)
    assert "whole beside its trunk alone: ratio" in told
    assert "all 28269 channels" in told
    assert re.search(r"64 float32 +eager +batch +1: network .* floor", told)
    assert re.search(r"96 float32 +CUDA graph +batch +2: network .* floor", told)


def test_a_joint_step_is_timed_by_the_training_loop_itself():
    told = run("--only", "9418", "9418-rows", script=SCRIPT.parent / "joint_step.py")
    assert "load average" in told.splitlines()[0]
    for network in ("20", "9418", "9418-rows"):
        assert re.search(rf"step +{network} +[\d.]+ ms .* ratio to 20 flat classes [\d.]+", told)
    assert "floor    trunk" in told


def test_the_original_program_and_its_fork_are_given_their_files_and_their_times_are_read(tmp_path):
    words = []
    for option, said in (("--darknet", "0.250000 seconds"), ("--darknet-avx2", "125.5 milli-seconds")):
        program = tmp_path / option.strip("-")
        program.write_text(
            f"""#!{sys.executable}
import sys
from pathlib import Path
assert sys.argv[1:3] == ["detector", "test"]
data, cfg, weights, picture = (Path(name) for name in sys.argv[3:7])
assert "tree=9k.tree" in cfg.read_text() and "names=9k.names" in data.read_text()
assert len(Path("9k.tree").read_text().splitlines()) == len(Path("9k.names").read_text().splitlines()) == 9418
assert weights.stat().st_size > 9418 * 3 * 64 * 4 and picture.read_bytes()[1:4] == b"PNG"
assert Path("data/labels/126_7.png").exists()
print("x.png: Predicted in {said}.")
print("entity that is not there: 31%")
"""
        )
        program.chmod(0o755)
        words += [option, str(program)]
    told = run("--only", "darknet", *words)
    assert told.count("it lists 1, 0 of ours there") == 2
    assert "darknet 250.00 ms, its AVX2 fork 125.50 ms" in told
