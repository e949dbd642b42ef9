//! What the C library does with memory that is given back.

/// Has glibc give memory out of two arenas, before threads begin, and not of one for each thread: observations are big, each
/// is made by another thread, and what an arena once had it keeps. Where it is not glibc nothing is done.
///
/// At 50,000 nodes and 20,000 VMs: 573 MB at the most before, 409 after.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes two numbers, and says by another whether it took them.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
