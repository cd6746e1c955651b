"""Freed memory is kept: a step asks the kernel for no page that the step before had."""

import ctypes
import platform
import resource

import pytest

from model import memory
from model.memory import keep_freed_memory

PAGE = resource.getpagesize()
MIB = 1 << 20


@pytest.mark.tf
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of another C library has no such switch")
def test_steps_take_no_new_pages_even_after_tensorflow_has_told_glibc_to_give_them_back():
    import tensorflow as tf

    one = tf.data.Dataset.from_generator(lambda: iter([1.0]), output_signature=tf.TensorSpec((), tf.float32))
    assert [float(number) for number in one] == [1.0]  # from here on TensorFlow's own threshold holds
    x = tf.random.uniform((1024, 1024))  # 4 MiB

    @tf.function(autograph=False)
    def step(x):
        return tf.reduce_sum(tf.nn.relu(tf.matmul(x, x)) @ tf.exp(x))

    def pages_of(steps: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(steps):
            step(x).numpy()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // steps

    assert keep_freed_memory()
    # Three tensors of 4 MiB and more are made and freed in each step. Without the call these are 2,000 pages a step, in
    # each of the tries. With it only the first step of a thread of TensorFlow's asks for pages; a thread may have its
    # first step at any time, hence several tries.
    assert min(pages_of(20) for _ in range(5)) < 4 * MIB / PAGE / 10


def test_where_the_allocator_has_no_such_switch_nothing_happens(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not keep_freed_memory()


def test_what_glibc_refuses_is_said(monkeypatch, caplog):
    asked = []

    class Strict:
        @staticmethod
        def mallopt(option, value):
            asked.append((option, value))
            return int(option != memory.M_MMAP_THRESHOLD)

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Strict)
    with caplog.at_level("INFO"):
        assert not keep_freed_memory()
    assert "refused mallopt of [-3]" in caplog.text
    assert dict(asked) == {-3: 32 * MIB, -1: 2**31 - 1, -2: 64 * MIB}, "as M_... of malloc.h; all are tried"
