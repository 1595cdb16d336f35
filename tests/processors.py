"""Run the tests as other processors would: the same tests with other kernels and another number of threads.

python tests/processors.py [ARGUMENTS FOR PYTEST]

Numerical libraries choose their kernels by the instructions of the processor, and each kernel rounds in its own way.
Environment variables restrict the choice: ATen, oneDNN and MKL in torch, OpenBLAS in numpy and scipy, numpy's own
loops, OpenCV and Arrow. onnxruntime has no such variable. On processors other than x86-64 only the number of threads
changes.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx512",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    "MKL_CBWR": "AVX512",
    "OPENBLAS_CORETYPE": "SkylakeX",
}
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
    "OPENCV_IPP": "avx2",
    "ARROW_USER_SIMD_LEVEL": "AVX2",
}
SSE4 = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,AVX,FP16",
    "OPENCV_IPP": "sse42",
    "ARROW_USER_SIMD_LEVEL": "SSE4_2",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def settings():
    """Return the environment variables of every setting that this processor can run, by the setting's name."""
    found = {name: dict.fromkeys(THREADS, threads) for name, threads in (("1 thread", "1"), ("2 threads", "2"))}
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return found
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    avx512 = [name for name in features if name.startswith("AVX512") or name == "X86_V4"]
    avx2 = bool({"AVX2", "X86_V3"} & set(features))
    one_thread = found["1 thread"]
    found["SSE4"] = SSE4 | one_thread | {"NPY_DISABLE_CPU_FEATURES": ",".join(features)}
    if avx2:
        found["AVX2"] = AVX2 | one_thread | {"NPY_DISABLE_CPU_FEATURES": ",".join(avx512)}
    if avx512:
        found["AVX-512"] = AVX512 | one_thread
    return found


def main(arguments):
    """Run pytest once under every setting; return 1 if a run fails."""
    failed = []
    for name, variables in settings().items():
        print(f"== {name}: {' '.join(f'{k}={v}' for k, v in variables.items())}", flush=True)
        command = [sys.executable, "-m", "pytest", *arguments]
        if subprocess.run(command, cwd=Path(__file__).parents[1], env=os.environ | variables).returncode:
            failed.append(name)
    print(f"failed under: {', '.join(failed)}" if failed else "passed under every setting")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
