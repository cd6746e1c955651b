"""Keep what is freed for what comes next, instead of giving it back to the kernel after each step.

A training step frees the same tensors that the next step asks for. glibc gives free memory back to the kernel, above a
threshold that rises with use; TensorFlow fixes it at 128 KiB when it makes its first dataset from a generator ("Memory
patch applied: M_TRIM_THRESHOLD"), and glibc then stops to raise the one above which it maps memory anew, too. So each
tensor costs page faults at each step, and the kernel fills each page with zeros: nearly half of the CPU's time.

Not by `MALLOC_TRIM_THRESHOLD_` or `GLIBC_TUNABLES`: TensorFlow's call would undo them, and whoever starts Python in
another way, such as Spark, would have to know of them.
"""

import ctypes
import logging

log = logging.getLogger(__name__)

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

# What is larger is mapped and given back each time. More is refused by glibc.
LARGEST_KEPT = 32 << 20
NEVER = (1 << 31) - 1
# Address space that is asked for at once; it costs memory when it is used, not before.
AHEAD = 64 << 20


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, up to the most that it ever needed at once.

    To be called after TensorFlow has made its first dataset from a generator, if it makes one: it changes the same
    thing, once in a process. Calling it again changes nothing.

    Returns:
        whether it could be asked for: not on macOS or musl, whose allocators have no such switch.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no "this process"
        return False
    wanted = {M_MMAP_THRESHOLD: LARGEST_KEPT, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: AHEAD}
    refused = [option for option, value in wanted.items() if not mallopt(option, value)]
    if refused:
        log.info("the C library refused mallopt of %s: freed memory is not kept, and steps are slower", refused)
    return not refused
