"""Coverage-guided fuzzing of one target, or of all in turn.

    python -m fuzz.run all --seconds 60
    python -m fuzz.run stream --seconds 600

What is found is written to `fuzz/findings/`; what made new code run stays in `fuzz/coverage/`. Both
are local. A finding, made small, belongs into `fuzz/corpus/`, where the tests run it for ever.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = sorted(folder.name for folder in (HERE / "corpus").iterdir())


def main() -> int:
    """Exit status: 0 where nothing was found, 1 where something was, 2 without a fuzzer."""
    parser = argparse.ArgumentParser(description="Fuzz the redaction engine.")
    parser.add_argument("target", choices=["all", *NAMES])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    options = parser.parse_args()
    if options.target != "all":
        return fuzz(options.target, options.seconds)
    failed = []
    for name in NAMES:
        # libFuzzer ends its process, so each target has one of its own.
        command = [sys.executable, "-m", "fuzz.run", name, "--seconds", str(options.seconds)]
        if subprocess.run(command, cwd=HERE.parent, check=False).returncode:
            failed.append(name)
    print(f"{len(NAMES)} targets, {options.seconds} s each; failed: {failed or 'none'}")
    return int(bool(failed))


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one target; does not return where the fuzzer runs."""
    try:
        import atheris
    except ImportError:
        print("atheris is not installed; run `make fuzz`, which installs it", file=sys.stderr)
        return 2
    corpus, work, findings = HERE / "corpus" / name, HERE / "coverage" / name, HERE / "findings"
    work.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    with atheris.instrument_imports(include=["privacy.pii"]):
        from fuzz.targets import TARGETS
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            "-max_len=400",
            "-timeout=30",
            f"-artifact_prefix={findings}/{name}-",
            str(work),
            str(corpus),
        ],
        TARGETS[name],
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
