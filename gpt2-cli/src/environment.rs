//! Environment variables that libraries read and have no other switch for. One that is set already stays as it is.

/// Sets them. To be called first of all, while the process has one thread.
pub(crate) fn prepare() {
    #[cfg(target_arch = "x86_64")]
    if let Some(kernels) = blis_kernels() {
        set("BLIS_ARCH_TYPE", kernels);
    }
    // Mesa's device-select layer looks for a Wayland display, and complains on standard error where there is no session.
    set("NODEVICE_SELECT", "1");
    // Sums inside the switch of NVLink are not the same each time; some hosts forbid them.
    set("NCCL_NVLS_ENABLE", "0");
}

/// The number (`arch_t` in `bli_type_defs.h`) of the kernels that BLIS should take, where it would choose slower ones.
#[cfg(target_arch = "x86_64")]
fn blis_kernels() -> Option<&'static str> {
    use std::arch::is_x86_feature_detected;
    const SKX: &str = "0";
    const HASWELL: &str = "3";
    // It takes its AVX-512 kernels only where it knows the processor's name, which a virtual machine hides. Processors with
    // AVX512-FP16 all have the two units that make the kernels worth it.
    if is_x86_feature_detected!("avx512fp16") {
        return Some(SKX);
    }
    // On AMD's it takes the same kernels as for Haswell with larger blocks, which are slower here (docs/lab-notes.md).
    let is_amd = std::arch::x86_64::__cpuid(0).ebx == u32::from_le_bytes(*b"Auth");
    (is_amd && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(HASWELL)
}

fn set(name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread reads the environment, since there is none yet.
        unsafe { std::env::set_var(name, value) };
    }
}
