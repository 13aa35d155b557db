"""Generate sdk/amends/v1 from proto/amends/v1; run by .venv-generate's Python (`make generate`)."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("amends/v1")
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def main() -> int:
    """Write the generated files below `--out` and return protoc's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "sdk", help="output root; default: sdk")
    return generate(parser.parse_args().out)


def generate(out: Path) -> int:
    """Compile every proto into `out`, after removing what earlier runs left there."""
    protos = sorted((ROOT / "proto" / PACKAGE).glob("*.proto"))
    if not protos:
        print("no .proto files below proto/amends/v1", file=sys.stderr)
        return 1
    remove_generated(out / PACKAGE)
    out.mkdir(parents=True, exist_ok=True)
    plain, served = sorted_by_service(protos)
    return protoc(out, plain + served) or protoc_grpc(out, served)


def remove_generated(folder: Path) -> None:
    """Delete generated files, so that a removed proto leaves nothing behind."""
    for pattern in GENERATED:
        for path in folder.glob(pattern):
            path.unlink()


def sorted_by_service(protos: list[Path]) -> tuple[list[Path], list[Path]]:
    """Split into files without and with a service: the former need no (empty) gRPC module."""
    served = [path for path in protos if has_service(path)]
    return [path for path in protos if path not in served], served


def has_service(path: Path) -> bool:
    """Whether the file declares a service."""
    return any(line.startswith("service ") for line in path.read_text(encoding="utf-8").splitlines())


def protoc(out: Path, protos: list[Path]) -> int:
    """Generate messages and their stubs."""
    return run([f"--python_out={out}", f"--mypy_out=quiet:{out}"], protos)


def protoc_grpc(out: Path, protos: list[Path]) -> int:
    """Generate services and their stubs, typed for grpc.aio only."""
    return run([f"--grpc_python_out={out}", f"--mypy_grpc_out=only_async,quiet:{out}"], protos) if protos else 0


def run(outputs: list[str], protos: list[Path]) -> int:
    """Run protoc with this interpreter's plugins first on the path."""
    root = ROOT / "proto"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    names = [path.relative_to(root).as_posix() for path in protos]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", *outputs, *names]
    return subprocess.run(command, check=False, env={**os.environ, "PATH": path}).returncode


if __name__ == "__main__":
    sys.exit(main())
