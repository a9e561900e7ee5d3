//! AdamW on a CUDA device: all parameters in a few launches.

use super::update::{Arrival, CLIP_EPS, Clip, Pending, TrainingBackend, UpdateRule, Updated};
use burn::tensor::ops::FloatTensor;
use cubecl::client::ComputeClient;
use cubecl::cuda::CudaRuntime;
use cubecl::future::block_on;
use cubecl::prelude::CubeElement;
use cubecl::{MemoryAllocationMode, Runtime};
use gpt2_kernels::adamw::{Rule, Slot, gradient_scale, squared_norm, update};
use gpt2_kernels::{contiguous, owned};
use gpt2_model::ops::Cuda;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

impl TrainingBackend for Cuda {
    const QUEUES_AHEAD: bool = true;

    fn adamw(
        pending: Vec<Pending<FloatTensor<Self>>>,
        rule: &UpdateRule,
        scale: FloatTensor<Self>,
    ) -> Vec<Updated<FloatTensor<Self>>> {
        let slots: Vec<Slot> = pending.into_iter().map(slot).collect();
        let rule = Rule {
            beta1: rule.beta1,
            beta2: rule.beta2,
            eps: rule.eps,
            square_correction: rule.square_correction,
            step_size: rule.step_size,
            shrink: rule.decay,
        };
        update(&slots, &scale, &rule);
        let updated = |slot: Slot| Updated {
            parameter: slot.parameter,
            mean: slot.mean,
            square: slot.square,
        };
        slots.into_iter().map(updated).collect()
    }

    fn gradient_scale(
        loss: FloatTensor<Self>,
        squared_norm: FloatTensor<Self>,
        before: Option<FloatTensor<Self>>,
        clip: &Clip,
    ) -> FloatTensor<Self> {
        let numbers = [clip.max_norm, clip.micro_steps, CLIP_EPS];
        gradient_scale(&loss, &squared_norm, before.as_ref(), numbers)
    }

    fn fetch(tensors: Vec<FloatTensor<Self>>) -> Arrival {
        let client = client(&tensors[0]);
        let copies = client.read_async(tensors.into_iter().map(|tensor| tensor.handle).collect());
        Arrival::new(|| {
            let copies = block_on(copies).expect("the device has done its work");
            copies
                .iter()
                .flat_map(|bytes| f32::from_bytes(bytes))
                .copied()
                .collect()
        })
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

/// The client of a tensor's device, for good: what is being read borrows it.
fn client(tensor: &FloatTensor<Cuda>) -> &'static ComputeClient<CudaRuntime> {
    static KNOWN: Mutex<BTreeMap<usize, &'static ComputeClient<CudaRuntime>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry(tensor.device.index)
        .or_insert_with(|| Box::leak(Box::new(tensor.client.clone())))
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
