//! AdamW on a CUDA device: all parameters in a few launches.

use super::{
    AdamWInput, AdamWOutput, AdamWStep, CLIP_EPS, Clip, Collective, CollectiveError, CollectiveLibrary, Collectives,
    DeviceTimer, Passed, Readback, TimerError, TrainingBackend,
};
use crate::ops::Cuda;
use burn::tensor::ops::FloatTensor;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::{MemoryAllocationMode, Runtime};
use gpt2_kernels::adamw::{self, Rule, Slot, gradient_scale, squared_norm, update};
use gpt2_kernels::nccl::{Communicator, Nccl, NcclError};
use gpt2_kernels::timer::{self, EventTimer};
use gpt2_kernels::{Tensor, contiguous, owned};

impl TrainingBackend for Cuda {
    const PIPELINES_STEPS: bool = true;
    const KEEPS_OPERANDS: bool = true;

    fn adamw(
        inputs: Vec<AdamWInput<FloatTensor<Self>>>,
        step: &AdamWStep,
        scale: FloatTensor<Self>,
    ) -> Vec<AdamWOutput<FloatTensor<Self>>> {
        // The tensors that are written must be uniquely owned.
        let slot = |input: AdamWInput<FloatTensor<Self>>| Slot {
            parameter: owned(input.parameter),
            gradient: contiguous(input.grad),
            mean: owned(input.exp_avg),
            square: owned(input.exp_avg_sq),
            operand: input.operand.map(owned),
            decays: input.has_weight_decay,
        };
        let slots: Vec<Slot> = inputs.into_iter().map(slot).collect();
        let rule = Rule {
            beta1: step.beta1,
            beta2: step.beta2,
            eps: step.eps,
            square_correction: step.bias_correction2_sqrt,
            step_size: step.step_size,
            shrink: step.decay_factor,
        };
        update(&slots, &scale, &rule);
        let output = |slot: Slot| AdamWOutput {
            parameter: slot.parameter,
            exp_avg: slot.mean,
            exp_avg_sq: slot.square,
            operand: slot.operand,
        };
        slots.into_iter().map(output).collect()
    }

    fn add_gradients(sums: Vec<Tensor>, gradients: Vec<Tensor>) -> Vec<Tensor> {
        // The tensors that are written must be uniquely owned.
        let sums: Vec<Tensor> = sums.into_iter().map(|sum| owned(contiguous(sum))).collect();
        let gradients: Vec<Tensor> = gradients.into_iter().map(contiguous).collect();
        adamw::add(&sums, &gradients);
        sums
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

    fn read_async(tensors: Vec<FloatTensor<Self>>) -> Readback {
        Readback::new(gpt2_kernels::read(tensors))
    }

    fn set_persistent_allocation(device: &Self::Device, on: bool) {
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

    fn set_reuses_activations(on: bool) {
        gpt2_kernels::product::set_reuses_activations(on);
    }

    fn compile_ahead(device: &Self::Device, threads: usize, rehearsal: impl FnOnce()) {
        gpt2_kernels::compile_ahead(device, threads, rehearsal);
    }

    fn lap(device: &Self::Device, before: Option<FloatTensor<Self>>) -> Option<(FloatTensor<Self>, FloatTensor<Self>)> {
        Some(gpt2_kernels::lap(device, before.as_ref()))
    }

    fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        let tensors: Vec<_> = tensors.into_iter().map(contiguous).collect();
        squared_norm(&tensors)
    }

    fn collectives() -> Result<Option<Collectives<Self>>, CollectiveError> {
        Ok(Some(Box::new(Nccl::load()?)))
    }

    fn timer(device: Self::Device) -> Result<Box<dyn DeviceTimer>, TimerError> {
        Ok(Box::new(EventTimer::new(&device)?))
    }
}

impl CollectiveLibrary<Tensor, CudaDevice> for Nccl {
    fn description(&self) -> String {
        Nccl::description(self)
    }

    fn unique_id(&self) -> Result<Vec<u8>, CollectiveError> {
        Ok(Nccl::unique_id(self)?)
    }

    fn join(
        &self,
        device: &CudaDevice,
        id: &[u8],
        rank: usize,
        size: usize,
    ) -> Result<Box<dyn Collective<Tensor>>, CollectiveError> {
        Ok(Box::new(Communicator::join(*self, device, id, rank, size)?))
    }
}

impl Collective<Tensor> for Communicator {
    fn sum(&mut self, tensors: Vec<Tensor>) -> Vec<Tensor> {
        Communicator::sum(self, tensors)
    }

    fn broadcast(&mut self, tensors: Vec<Tensor>, owners: &[usize]) -> Vec<Tensor> {
        Communicator::broadcast(self, tensors, owners)
    }

    fn wait(&mut self) -> Tensor {
        Communicator::wait(self)
    }

    fn take_milliseconds(&mut self) -> Result<f64, CollectiveError> {
        Ok(Communicator::take_milliseconds(self)?)
    }

    fn check(&self) -> Result<(), CollectiveError> {
        Ok(Communicator::check(self)?)
    }
}

impl From<NcclError> for CollectiveError {
    fn from(error: NcclError) -> Self {
        Self(error.to_string())
    }
}

impl DeviceTimer for EventTimer {
    fn is_asynchronous(&self) -> bool {
        true
    }

    fn mark(&mut self) {
        EventTimer::mark(self);
    }

    fn take(&mut self) -> Result<Vec<Passed>, TimerError> {
        let marks = EventTimer::take(self)?;
        Ok(marks.into_iter().map(|[queued, at]| Passed { queued, at }).collect())
    }
}

impl From<timer::TimerError> for TimerError {
    fn from(error: timer::TimerError) -> Self {
        match error {
            timer::TimerError::DriverTooOld => Self::DriverTooOld,
            timer::TimerError::Driver(error) => Self::Failed(format!("the CUDA driver answers {error}")),
            timer::TimerError::NoDevice => Self::Failed("its thread has ended".to_owned()),
        }
    }
}
