"""What counts as a lack of memory, whichever library says it."""

import errno

import pytest
import torch

from hilo_nas.errors import DataError, NotEnoughMemoryError, OutOfMemoryError, StorageError, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        OutOfMemoryError("memory ran out"),
        NotEnoughMemoryError("memory ran out"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: 3 bytes"
        ),
        RuntimeError("unable to mmap 17 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_lack_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("out of memory"),
        ValueError("out of memory"),
        StorageError("the disk is full"),
        DataError("broken images"),
        KeyboardInterrupt(),
    ],
)
def test_nothing_else_is_taken_for_it(error):
    assert not is_out_of_memory(error)
