//! jemalloc for the whole process, librdkafka included: it allocates each record on one thread, and the worker frees it on
//! another, which with glibc's allocator costs both of them a quarter of a drain's time (`docs/decisions/0006-jemalloc.md`).

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc when it starts. One arena suffices for the few threads that allocate much, each of which keeps what is
/// small for itself; what was freed goes back to the system after half a second, so that a worker that has caught up is
/// small again.
#[allow(unsafe_code, reason = "the symbol of this name is jemalloc's own, a pointer to a text that ends with a zero")]
#[unsafe(export_name = "malloc_conf")]
pub(crate) static CONFIGURATION: Option<&'static u8> = Some(&b"narenas:1,dirty_decay_ms:500,muzzy_decay_ms:0\0"[0]);
