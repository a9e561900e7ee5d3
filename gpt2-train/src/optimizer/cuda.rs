//! AdamW on a CUDA device: all parameters in a few launches.

use super::update::{Pending, TrainingBackend, UpdateRule, Updated};
use burn::tensor::ops::FloatTensor;
use cubecl::cuda::CudaRuntime;
use cubecl::{MemoryAllocationMode, Runtime};

use gpt2_kernels::adamw::{Rule, Slot, squared_norm, update};
use gpt2_kernels::{contiguous, owned};
use gpt2_model::ops::Cuda;

impl TrainingBackend for Cuda {
    fn adamw(pending: Vec<Pending<FloatTensor<Self>>>, rule: &UpdateRule) -> Vec<Updated<FloatTensor<Self>>> {
        let slots: Vec<Slot> = pending.into_iter().map(slot).collect();
        let rule = Rule {
            scale: rule.grad_scale,
            beta1: rule.beta1,
            beta2: rule.beta2,
            eps: rule.eps,
            square_correction: rule.square_correction,
            step_size: rule.step_size,
            shrink: rule.decay,
        };
        update(&slots, &rule);
        let updated = |slot: Slot| Updated {
            parameter: slot.parameter,
            mean: slot.mean,
            square: slot.square,
        };
        slots.into_iter().map(updated).collect()
    }

    fn keep_memory_by_size(device: &Self::Device, on: bool) {
        let client = CudaRuntime::client(device);
        let mode = if on {
            MemoryAllocationMode::Persistent
        } else {
            MemoryAllocationMode::Auto
        };
        // SAFETY: the mode decides from which pool later allocations come; those made so far stay valid.
        unsafe { client.allocation_mode(mode) };
        if on {
            client.memory_cleanup();
        }
    }

    fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        let tensors: Vec<_> = tensors.into_iter().map(contiguous).collect();
        squared_norm(&tensors)
    }
}

/// The tensors that are written must be nobody else's.
fn slot(pending: Pending<FloatTensor<Cuda>>) -> Slot {
    Slot {
        parameter: owned(pending.parameter),
        gradient: contiguous(pending.gradient),
        mean: owned(pending.mean),
        square: owned(pending.square),
        decays: pending.decays,
    }
}
