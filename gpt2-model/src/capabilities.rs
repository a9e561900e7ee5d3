//! What each backend can do. Facts and arithmetic alone: no tensors, and always compiled.
//!
//! The plan of a run judges, predicts and describes from [`Capabilities`]; the operations decide between kernel and
//! reference by the same functions.

use crate::config::Gpt2Config;
use crate::precision::Precision;
use crate::recompute::Recompute;
use crate::variant::Activation;
use std::fmt;

/// What divides the widths that the CUDA kernels take: elements that they read at once in `bf16`.
pub(crate) const CUDA_LANES: usize = 8;

/// Channels of the widest attention head that the CUDA kernels take.
pub(crate) const CUDA_WIDEST_HEAD: usize = 128;

/// Channels of the only attention head that the CUDA kernels for TF32 take: every published GPT-2's.
const CUDA_TF32_HEAD: usize = 64;

/// Channels of the widest rows that the CUDA kernels normalise and look up.
pub(crate) const CUDA_WIDEST_ROW: usize = 4096;

/// Channels of the widest attention head that the wgpu kernels take.
pub(crate) const WGPU_WIDEST_HEAD: usize = 128;

/// Elements that the wgpu kernels read at once, and those for one position on CUDA.
pub(crate) const WGPU_LANES: usize = 4;

/// Channels of the widest attention head that the kernels for one position take.
pub(crate) const DECODE_WIDEST_HEAD: usize = 1024;

/// Bytes of logits that the CUDA classifier makes at once: 4,096 rows of GPT-2's vocabulary in `bf16`.
pub(crate) const CUDA_LOGITS_BYTES: usize = 4096 * 50_304 * 2;

/// Logits that the reference makes at once, and the wgpu classifier where the device binds no more: 64 MiB of `f32`.
pub(crate) const FEW_LOGITS: usize = 1 << 24;

/// Logits that the wgpu classifier makes at once: 256 MiB.
pub(crate) const WGPU_LOGITS: usize = 1 << 26;

/// Rows of logits that the CPU's classifier makes at once, in `f32`: enough that packing the embedding for the product costs
/// little besides, and of GPT-2's vocabulary a buffer of 100 MiB.
pub(crate) const CPU_LOGITS_ROWS: usize = 512;

/// A backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// NVIDIA GPUs.
    Cuda,
    /// GPUs through Vulkan, Metal or DirectX.
    Wgpu,
    /// The CPU, on burn-ndarray's arrays.
    Ndarray,
    /// The CPU, on burn-flex's tensors.
    Flex,
}

impl BackendKind {
    /// Every backend, the one to prefer first.
    pub const ALL: [Self; 4] = [Self::Cuda, Self::Wgpu, Self::Ndarray, Self::Flex];

    /// Its name in run files and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
            Self::Ndarray => "ndarray",
            Self::Flex => "flex",
        }
    }

    /// What is in memory between products that are computed in `precision`: `f32` where operands are rounded only as they
    /// are multiplied.
    pub fn stored(self, precision: Precision) -> Precision {
        match (self, precision) {
            (Self::Wgpu, Precision::Bf16) | (_, Precision::Tf32) => Precision::F32,
            _ => precision,
        }
    }

    /// Whether a kernel multiplies operands in `precision` where one of them is a matrix of parameters with these sides.
    pub fn supports_matmul(self, precision: Precision, sides: &[usize]) -> bool {
        match self {
            Self::Cuda => sides.iter().all(|side| side.is_multiple_of(CUDA_LANES)),
            Self::Wgpu => precision != Precision::Tf32 && sides.iter().all(|side| side.is_multiple_of(WGPU_LANES)),
            Self::Ndarray => precision == Precision::F32,
            Self::Flex => precision != Precision::Tf32,
        }
    }

    /// Whether a kernel normalises rows of `n_embd` channels, with a result in `precision`. On CUDA it looks up rows of as many.
    pub fn supports_layer_norm(self, precision: Precision, n_embd: usize) -> bool {
        match self {
            Self::Cuda => n_embd.is_multiple_of(CUDA_LANES) && n_embd <= CUDA_WIDEST_ROW,
            Self::Ndarray => precision == Precision::F32,
            Self::Wgpu | Self::Flex => precision != Precision::Tf32,
        }
    }

    /// Whether a kernel computes attention of `n_head` heads on `n_embd` channels, with operands in `precision`.
    pub fn supports_attention(self, precision: Precision, n_embd: usize, n_head: usize) -> bool {
        match self {
            Self::Cuda if precision == Precision::Tf32 => n_embd == n_head * CUDA_TF32_HEAD,
            Self::Cuda => n_embd.is_multiple_of(CUDA_LANES * n_head) && n_embd / n_head <= CUDA_WIDEST_HEAD,
            Self::Wgpu => {
                precision != Precision::Tf32
                    && n_embd.is_multiple_of(WGPU_LANES * n_head)
                    && n_embd / n_head <= WGPU_WIDEST_HEAD
            }
            Self::Ndarray => precision == Precision::F32,
            Self::Flex => precision != Precision::Tf32,
        }
    }

    /// Whether kernels compute one position of a model of this shape at a time, as generation does.
    pub fn supports_decode(self, config: &Gpt2Config) -> bool {
        let takes = |width: usize| width.is_multiple_of(WGPU_LANES);
        let head = config.head_dim();
        matches!(self, Self::Cuda | Self::Wgpu)
            && !config.variant.is_without_block_kernels()
            && takes(config.inner_size())
            && takes(head)
            && head <= DECODE_WIDEST_HEAD
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How an operation of the training step is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Implementation {
    /// By a kernel of our own.
    Kernel,
    /// In plain tensors, for this reason.
    Reference(String),
}

impl Implementation {
    /// Whether it is a kernel.
    pub fn is_kernel(&self) -> bool {
        *self == Self::Kernel
    }

    fn kernel_if(is_supported: bool, reason: impl FnOnce() -> String) -> Self {
        if is_supported {
            Self::Kernel
        } else {
            Self::Reference(reason())
        }
    }
}

/// Why a model cannot be trained in a precision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedPrecision {
    /// What would be right.
    pub expected: String,
    /// What to do about it.
    pub fix: &'static str,
}

/// What a backend does for the training step of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether the backend's training step has the precision. Whether a device computes in it is another question.
    pub precision: Result<(), UnsupportedPrecision>,
    /// Matrix products.
    pub matmul: Implementation,
    /// LayerNorm, and on CUDA the embedding.
    pub layer_norm: Implementation,
    /// Attention. In plain tensors its scores are materialised, `[B, H, T, T]`.
    pub attention: Implementation,
    /// The MLP's activation function.
    pub activation: Implementation,
    /// What is put on attention's scores.
    pub score_factor: Implementation,
    /// Bytes of logits that are in memory at once, at the most.
    pub logits_bytes: u64,
    /// What is recomputed where nothing is chosen and memory is short or unknown.
    pub saving_recompute: Recompute,
    /// Whether gradients of weights may take the memory of activations that are dead by then.
    pub gradients_reuse_activations: bool,
    /// Whether plain tensors multiply in TF32 what should be `f32`, as Burn's do on CUDA.
    reference_is_tf32: bool,
}

impl Capabilities {
    /// Those of `backend` for a model of this shape and dropout.
    ///
    /// ```
    /// use gpt2_model::capabilities::{BackendKind, Capabilities};
    /// use gpt2_model::{Gpt2Config, Precision};
    ///
    /// let can = Capabilities::of(BackendKind::Cuda, &Gpt2Config::preset("gpt2")?, Precision::Bf16);
    /// assert!(can.precision.is_ok() && can.attention.is_kernel());
    /// # Ok::<(), gpt2_model::ModelError>(())
    /// ```
    pub fn of(backend: BackendKind, config: &Gpt2Config, precision: Precision) -> Self {
        let (n_embd, n_head, head) = (config.n_embd, config.n_head, config.head_dim());
        let has_dropout = config.dropout > 0.0;
        let activation = config.variant.activation_function;
        let sides = [n_embd, config.padded_vocab_size()];
        let attention = if has_dropout {
            Implementation::Reference("the kernels have no dropout".to_owned())
        } else {
            let is_supported = backend.supports_attention(precision, n_embd, n_head);
            Implementation::kernel_if(is_supported, || {
                let (lanes, widest) = match backend {
                    BackendKind::Cuda if precision == Precision::Tf32 => {
                        return format!("the TF32 kernels take heads of {CUDA_TF32_HEAD} channels, not of {head}");
                    }
                    BackendKind::Cuda => (CUDA_LANES, CUDA_WIDEST_HEAD),
                    _ => (WGPU_LANES, WGPU_WIDEST_HEAD),
                };
                format!("the kernels take heads of a multiple of {lanes} channels, up to {widest}, not of {head}")
            })
        };
        let multiple = |of: usize| format!("the kernels take widths that are a multiple of {of}, not {n_embd}");
        let blocks_are_one_operation = !has_dropout && !config.variant.is_without_block_kernels();
        let multiplies = backend.supports_matmul(precision, &sides);
        let mut capabilities = Self {
            precision: Ok(()),
            matmul: Implementation::kernel_if(multiplies, || {
                multiple(if backend == BackendKind::Cuda {
                    CUDA_LANES
                } else {
                    WGPU_LANES
                })
            }),
            layer_norm: Implementation::kernel_if(backend.supports_layer_norm(precision, n_embd), || {
                if backend == BackendKind::Cuda && n_embd > CUDA_WIDEST_ROW {
                    format!("the kernels take rows of up to {CUDA_WIDEST_ROW} channels, not of {n_embd}")
                } else {
                    multiple(CUDA_LANES)
                }
            }),
            attention,
            activation: Implementation::kernel_if(activation == Activation::GeluTanh, || {
                format!(
                    "the kernels compute GELU in its tanh form, not {}",
                    activation.hf_name()
                )
            }),
            score_factor: Implementation::kernel_if(!config.variant.scales_scores(), || {
                "the kernels divide them by the root of the head's width alone".to_owned()
            }),
            logits_bytes: match backend {
                BackendKind::Ndarray | BackendKind::Flex => CPU_LOGITS_ROWS * config.padded_vocab_size() * 4,
                BackendKind::Wgpu => WGPU_LOGITS * 4,
                BackendKind::Cuda => CUDA_LOGITS_BYTES,
            } as u64,
            // Operation by operation, as with dropout, a block keeps all activations.
            saving_recompute: match backend {
                BackendKind::Cuda if blocks_are_one_operation => Recompute::Gelu,
                _ => Recompute::None,
            },
            gradients_reuse_activations: backend == BackendKind::Cuda && multiplies && blocks_are_one_operation,
            reference_is_tf32: backend == BackendKind::Cuda && precision == Precision::F32,
        };
        capabilities.precision = capabilities.check_precision(backend, precision, config);
        capabilities
    }

    /// The same backend without our kernels.
    #[must_use]
    pub fn in_plain_tensors(mut self, precision: Precision) -> Self {
        let reference = || Implementation::Reference("`operations` is reference".to_owned());
        [self.matmul, self.layer_norm, self.attention] = [(); 3].map(|()| reference());
        // Each logit is kept for the backward pass.
        self.logits_bytes = u64::MAX;
        self.saving_recompute = Recompute::None;
        self.gradients_reuse_activations = false;
        if precision == Precision::Tf32 {
            self.precision = Err(UnsupportedPrecision {
                expected: "f32 or bf16 with `operations` reference".to_owned(),
                fix: "plain tensors cannot be asked for TF32; leave out one of the two",
            });
        }
        self
    }

    fn check_precision(
        &self,
        backend: BackendKind,
        precision: Precision,
        config: &Gpt2Config,
    ) -> Result<(), UnsupportedPrecision> {
        let is_plain = config.variant.is_without_block_kernels();
        let dropout = config.dropout;
        let (expected, fix) = match (precision, backend) {
            (Precision::Bf16, BackendKind::Ndarray) => (
                "f32 on the ndarray backend, whose tensors have no bf16".to_owned(),
                "choose `backend` flex, which takes bf16 on processors with AMX, or leave `precision` out",
            ),
            (Precision::Bf16, BackendKind::Flex) if dropout > 0.0 => (
                format!("f32 on the flex backend with a dropout of {dropout}"),
                "the CPU's bf16 kernels take no dropout; leave out one of the two",
            ),
            (Precision::Bf16, BackendKind::Flex) if is_plain => (
                "f32 on the flex backend for a model with another activation or attention than OpenAI's".to_owned(),
                "the CPU's bf16 kernels compute OpenAI's alone; leave `precision` out",
            ),
            (Precision::Bf16, BackendKind::Wgpu)
                if dropout > 0.0 || is_plain || !self.matmul.is_kernel() || !self.attention.is_kernel() =>
            {
                (
                    "f32 on the wgpu backend for this model".to_owned(),
                    "its bf16 kernels take widths that are a multiple of 4, heads of up to 128 channels, OpenAI's \
                     activation and attention, and no dropout; leave `precision` out",
                )
            }
            (Precision::Tf32, BackendKind::Cuda) if is_plain => (
                "f32 or bf16 for a model with another activation or attention than OpenAI's".to_owned(),
                "the TF32 kernels compute OpenAI's alone; choose another `precision`",
            ),
            (Precision::Tf32, BackendKind::Cuda) if self.attention.is_kernel() && self.layer_norm.is_kernel() => {
                return Ok(());
            }
            (Precision::Tf32, BackendKind::Cuda) => (
                "f32 or bf16 for this shape".to_owned(),
                "the TF32 kernels take widths up to 4096, heads of 64 channels and no dropout; \
                 choose `n-head` as `n-embd` / 64",
            ),
            (Precision::Tf32, _) => (
                "f32 or bf16 on any backend but cuda".to_owned(),
                "TF32 is an arithmetic of NVIDIA's GPUs; choose `backend` cuda or leave `precision` out",
            ),
            (Precision::F32 | Precision::Bf16, _) => return Ok(()),
        };
        Err(UnsupportedPrecision { expected, fix })
    }

    /// Which operations are computed in plain tensors and why, in words; none where kernels compute all of them.
    pub fn describe_references(&self) -> Option<String> {
        let tensors = if self.reference_is_tf32 {
            "plain tensors, slower and in TF32"
        } else {
            "plain tensors, slower"
        };
        let mut sentences: Vec<(Vec<&str>, &str)> = Vec::new();
        for (operation, implementation) in [
            ("matrix products", &self.matmul),
            ("LayerNorm", &self.layer_norm),
            ("attention", &self.attention),
            ("the activation function", &self.activation),
            ("the factor on attention's scores", &self.score_factor),
        ] {
            let Implementation::Reference(reason) = implementation else {
                continue;
            };
            match sentences.last_mut() {
                Some((operations, last)) if last == reason => operations.push(operation),
                _ => sentences.push((vec![operation], reason)),
            }
        }
        let sentences: Vec<String> = sentences
            .into_iter()
            .map(|(operations, reason)| format!("{} in {tensors}: {reason}", operations.join(", ")))
            .collect();
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(n_embd: usize, n_head: usize, dropout: f64) -> Gpt2Config {
        Gpt2Config {
            n_head,
            n_embd,
            dropout,
            ..Gpt2Config::preset("d4").unwrap()
        }
    }

    #[test]
    fn published_sizes_have_kernels_for_all_operations() {
        for name in ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"] {
            let config = Gpt2Config::preset(name).unwrap();
            for (backend, precision) in [
                (BackendKind::Cuda, Precision::F32),
                (BackendKind::Cuda, Precision::Tf32),
                (BackendKind::Cuda, Precision::Bf16),
                (BackendKind::Wgpu, Precision::F32),
                (BackendKind::Wgpu, Precision::Bf16),
                (BackendKind::Ndarray, Precision::F32),
                (BackendKind::Flex, Precision::F32),
                (BackendKind::Flex, Precision::Bf16),
            ] {
                let can = Capabilities::of(backend, &config, precision);
                assert_eq!((&can.precision, can.describe_references()), (&Ok(()), None), "{name}");
            }
        }
    }

    #[test]
    fn what_is_computed_in_plain_tensors_is_said_with_the_reason() {
        let said = |backend, n_embd, n_head, dropout, precision| {
            Capabilities::of(backend, &config(n_embd, n_head, dropout), precision).describe_references()
        };
        let cases = [
            (
                said(BackendKind::Cuda, 512, 2, 0.0, Precision::F32),
                "attention in plain tensors, slower and in TF32: \
                 the kernels take heads of a multiple of 8 channels, up to 128, not of 256",
            ),
            (
                said(BackendKind::Cuda, 100, 4, 0.0, Precision::Bf16),
                "matrix products, LayerNorm in plain tensors, slower: \
                 the kernels take widths that are a multiple of 8, not 100; attention in plain tensors, slower: \
                 the kernels take heads of a multiple of 8 channels, up to 128, not of 25",
            ),
            (
                said(BackendKind::Cuda, 8192, 64, 0.0, Precision::Bf16),
                "LayerNorm in plain tensors, slower: the kernels take rows of up to 4096 channels, not of 8192",
            ),
            (
                said(BackendKind::Cuda, 128, 4, 0.0, Precision::Tf32),
                "attention in plain tensors, slower: the TF32 kernels take heads of 64 channels, not of 32",
            ),
            (
                said(BackendKind::Wgpu, 128, 64, 0.0, Precision::F32),
                "attention in plain tensors, slower: the kernels take heads of a multiple of 4 channels, up to 128, not of 2",
            ),
            (
                said(BackendKind::Ndarray, 128, 4, 0.1, Precision::F32),
                "attention in plain tensors, slower: the kernels have no dropout",
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found.unwrap(), expected);
        }
        assert_eq!(said(BackendKind::Ndarray, 100, 4, 0.0, Precision::F32), None);
        for (n_embd, n_head) in [(128, 4), (800, 10), (1152, 12), (1024, 8), (40, 1)] {
            assert_eq!(said(BackendKind::Cuda, n_embd, n_head, 0.0, Precision::Bf16), None);
        }
    }

    #[test]
    fn memory_of_logits_follows_the_vocabulary() {
        let bytes = |backend, vocab_size| {
            let config = Gpt2Config {
                vocab_size,
                ..config(128, 2, 0.0)
            };
            Capabilities::of(backend, &config, Precision::F32).logits_bytes
        };
        assert_eq!(bytes(BackendKind::Ndarray, 50_257), 512 * 50_304 * 4);
        assert_eq!(bytes(BackendKind::Flex, 1_000), 512 * 1_024 * 4);
        assert_eq!(bytes(BackendKind::Wgpu, 1_000), 256 << 20);
        assert_eq!(bytes(BackendKind::Cuda, 1_000), bytes(BackendKind::Cuda, 50_257));
    }
}
