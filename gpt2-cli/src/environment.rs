//! Environment variables that libraries read and have no other switch for. One that is set already stays as it is.

/// Sets them. To be called first of all, while the process has one thread.
pub(crate) fn prepare() {
    // BLIS takes its AVX-512 kernels only where it knows the processor's name, which a virtual machine hides. Processors
    // with AVX512-FP16 all have the two units that make the kernels worth it. 0 is the kernels' number (`arch_t` in
    // `bli_type_defs.h`).
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512fp16") {
        set("BLIS_ARCH_TYPE", "0");
    }
    // Mesa's device-select layer looks for a Wayland display, and complains on standard error where there is no session.
    set("NODEVICE_SELECT", "1");
}

fn set(name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread reads the environment, since there is none yet.
        unsafe { std::env::set_var(name, value) };
    }
}
