//! Peak dense rates of GPUs, from NVIDIA's data sheets and architecture white papers. Model FLOPs utilisation divides by them.
//!
//! A GPU that is not here has no known peak, and a report says so rather than guess.

/// The arithmetic in which matrix products run, with f32 accumulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// bfloat16 on tensor cores.
    Bf16,
    /// float16 on tensor cores, for GPUs before Ampere.
    Fp16,
    /// TF32 on tensor cores: what f32 products become where tensor cores are used for them.
    Tf32,
    /// f32 outside tensor cores.
    F32,
}

/// One GPU. The rates are in TFLOP/s without sparsity; 0 stands for an arithmetic that the GPU does not have.
struct Peak {
    /// Words that its name must hold, in capitals.
    words: &'static [&'static str],
    /// Words that make it another GPU.
    not: &'static [&'static str],
    bf16: f64,
    fp16: f64,
    tf32: f64,
    f32: f64,
}

const fn ampere_or_later(
    words: &'static [&'static str],
    not: &'static [&'static str],
    half: f64,
    tf32: f64,
    f32: f64,
) -> Peak {
    Peak {
        words,
        not,
        bf16: half,
        fp16: half,
        tf32,
        f32,
    }
}

/// GeForce rates are those with f32 accumulation, which is half the rate that is usually quoted.
const PEAKS: [Peak; 15] = [
    ampere_or_later(&["A100"], &[], 312.0, 156.0, 19.5),
    ampere_or_later(&["H100", "PCIE"], &[], 756.0, 378.0, 51.0),
    ampere_or_later(&["H100", "NVL"], &[], 835.0, 417.5, 60.0),
    ampere_or_later(&["H100"], &["PCIE", "NVL"], 989.4, 494.7, 66.9),
    ampere_or_later(&["H200"], &["NVL"], 989.4, 494.7, 66.9),
    ampere_or_later(&["B200"], &[], 2250.0, 1100.0, 75.0),
    ampere_or_later(&["L4"], &[], 121.0, 60.0, 30.3),
    ampere_or_later(&["L40S"], &[], 362.0, 183.0, 91.6),
    ampere_or_later(&["A10"], &[], 125.0, 62.5, 31.2),
    ampere_or_later(&["RTX", "3090"], &["TI"], 71.0, 35.6, 35.6),
    ampere_or_later(&["RTX", "4090"], &["D", "LAPTOP"], 165.2, 82.6, 82.6),
    ampere_or_later(&["RTX", "5090"], &["D", "LAPTOP"], 209.5, 104.8, 104.8),
    Peak {
        words: &["V100", "PCIE"],
        not: &[],
        bf16: 0.0,
        fp16: 112.0,
        tf32: 0.0,
        f32: 14.0,
    },
    Peak {
        words: &["V100", "SXM2"],
        not: &[],
        bf16: 0.0,
        fp16: 125.0,
        tf32: 0.0,
        f32: 15.7,
    },
    Peak {
        words: &["V100", "SXM3"],
        not: &[],
        bf16: 0.0,
        fp16: 125.0,
        tf32: 0.0,
        f32: 15.7,
    },
];

/// The dense peak of the GPU called `name` by its driver, in FLOP/s. None for a GPU that is not in the table, for a part
/// of a GPU (MIG), and for an arithmetic that it does not have.
pub fn peak_flops(name: &str, arithmetic: Arithmetic) -> Option<f64> {
    let name = name.to_uppercase();
    // Whole words only: `A10` is no `A100` and `L4` no `L40S`. SXM boards say `V100-SXM2-16GB`.
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).collect();
    let has = |word: &&str| words.contains(word);
    let peak = PEAKS
        .iter()
        .find(|peak| peak.words.iter().all(has) && !peak.not.iter().any(has))?;
    let tflops = match arithmetic {
        Arithmetic::Bf16 => peak.bf16,
        Arithmetic::Fp16 => peak.fp16,
        Arithmetic::Tf32 => peak.tf32,
        Arithmetic::F32 => peak.f32,
    };
    (tflops > 0.0 && !words.contains(&"MIG")).then_some(tflops * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bf16(name: &str) -> Option<f64> {
        peak_flops(name, Arithmetic::Bf16).map(|flops| flops / 1e12)
    }

    #[test]
    fn names_as_drivers_give_them() {
        for (name, tflops) in [
            ("NVIDIA A100-SXM4-80GB", 312.0),
            ("NVIDIA A100 80GB PCIe", 312.0),
            ("NVIDIA H100 80GB HBM3", 989.4),
            ("NVIDIA H100 PCIe", 756.0),
            ("NVIDIA H100 NVL", 835.0),
            ("NVIDIA H200", 989.4),
            ("NVIDIA B200", 2250.0),
            ("NVIDIA L4", 121.0),
            ("NVIDIA L40S", 362.0),
            ("NVIDIA A10", 125.0),
            ("NVIDIA GeForce RTX 3090", 71.0),
            ("NVIDIA GeForce RTX 4090", 165.2),
            ("NVIDIA GeForce RTX 5090", 209.5),
        ] {
            assert_eq!(bf16(name), Some(tflops), "{name}");
        }
    }

    #[test]
    fn near_names_are_other_gpus() {
        for name in [
            "NVIDIA A10G",
            "NVIDIA L40",
            "NVIDIA GeForce RTX 3090 Ti",
            "NVIDIA GeForce RTX 4090 D",
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "NVIDIA H200 NVL",
            "NVIDIA GB200",
            "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
            "llvmpipe (LLVM 15.0.6, 256 bits)",
            "",
        ] {
            assert_eq!(bf16(name), None, "{name}");
        }
    }

    #[test]
    fn volta_has_no_bf16_and_no_tf32() {
        let volta = "Tesla V100-SXM2-16GB";
        assert_eq!(bf16(volta), None);
        assert_eq!(peak_flops(volta, Arithmetic::Tf32), None);
        assert_eq!(peak_flops(volta, Arithmetic::Fp16), Some(125e12));
        assert_eq!(peak_flops(volta, Arithmetic::F32), Some(15.7e12));
    }

    #[test]
    fn tensor_cores_are_faster_than_f32_and_half_faster_than_tf32() {
        for peak in PEAKS.iter().filter(|peak| peak.tf32 > 0.0) {
            assert!(peak.bf16 > peak.tf32 && peak.tf32 >= peak.f32, "{:?}", peak.words);
        }
    }
}
