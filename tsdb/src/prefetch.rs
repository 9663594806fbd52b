//! Asks the processor for memory that is about to be needed.
//!
//! Millions of series do not fit into a cache: what touches one after the other waits for memory most of the time,
//! unless it says beforehand which come next.

/// Starts to load what is at `at`, which may be any address; nothing else happens.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: all x86-64 processors have the instruction. It reads nothing that a program can see and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// As [`prefetch`], all cache lines of a value.
#[inline(always)]
pub(crate) fn prefetch_all<T>(value: *const T) {
    const LINE: usize = 64;
    (0..size_of::<T>().div_ceil(LINE)).for_each(|line| prefetch(value.wrapping_byte_add(line * LINE)));
}
