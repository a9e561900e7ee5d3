//! The processes that train one model together, each on its share of the global batch, as the step loop sees them.
//!
//! Sums are exchanged, not means: a step divides once, by the micro-steps of all ranks.

use crate::error::TrainError;
use crate::gradients::{GradientList, GradientSum, of_tensors};
use crate::stop::StopReason;
use burn::module::{Param, list_param_ids};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{FloatTensor, FloatTensorOps as _};
use burn::tensor::{Shape, Tensor, TensorData, TensorMetadata, TensorPrimitive};
use gpt2_model::Gpt2;
use gpt2_model::ops::training::{Collective, CollectiveError, TrainingBackend};
use gpt2_model::ops::{Gpt2Backend, TakeBlockGradients, take_block_gradients, to_host};
use gpt2_model::weights::{NamedVisitor, visit_parameters};
use gpt2_ranks::{ProcessGroup, RanksError};
use gpt2_records::{Communication, RankPlace, RankStep};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ranks of a run. Of a run of one process nothing is exchanged, and nothing costs anything.
pub(crate) struct Ranks<B: AutodiffBackend>(Option<Several<B>>);

/// The ranks, met on their devices.
type OnDevices<B> = Box<dyn Collective<FloatTensor<B>>>;

struct Several<B: AutodiffBackend> {
    processes: ProcessGroup,
    /// What sums from device to device; none where sums go through the host.
    collective: Option<OnDevices<B::InnerBackend>>,
    /// Numbers of the step that is being queued, on the device: what each rank wants, `[ranks]`, and how long this
    /// device waited each time, `[1]`.
    to_read: Vec<FloatTensor<B::InnerBackend>>,
    communication: Communication,
}

/// What the ranks have told each other in a step.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Why this rank would stop after the step, if it would.
    own: Option<StopReason>,
    /// What each rank wants, where it is known already.
    wishes: Vec<f32>,
    /// How long the slowest rank was waited for, and how long the exchange took after that, where it goes through the host.
    on_host: [Duration; 2],
}

/// Where the time of a step went between ranks.
#[derive(Debug, Default)]
pub(crate) struct ExchangeTimes {
    /// Waiting for the slowest rank, where that is known.
    pub(crate) wait: Option<Duration>,
    /// Exchanging, with nothing else to do.
    pub(crate) communication: Option<Duration>,
    /// Exchanging while the step was computed.
    pub(crate) overlapped: Option<Duration>,
}

/// What a rank wants, as the number that is exchanged.
const NOTHING: f32 = 0.0;
const TIME_LIMIT: f32 = 1.0;
const REQUESTED: f32 = 2.0;

impl<B> Ranks<B>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    /// One process alone, or the ranks of a group, which meet on their devices: this one's is at `place`.
    ///
    /// # Errors
    /// [`TrainError::RankCannotBegin`] on all ranks if one cannot sum on its device.
    pub(crate) fn connect(
        processes: Option<ProcessGroup>,
        device: &B::Device,
        place: &RankPlace,
    ) -> Result<Self, TrainError> {
        let Some(mut processes) = processes else {
            return Ok(Self(None));
        };
        let (library, collective) = match connect_devices::<B::InnerBackend>(&mut processes, device)? {
            Some((library, collective)) => (library, Some(collective)),
            None => ("through rank 0, in the order of the ranks".to_owned(), None),
        };
        let own = serde_json::to_vec(place).unwrap_or_default();
        let ranks = processes.all_gather(&own)?;
        let ranks = ranks
            .iter()
            .filter_map(|place| serde_json::from_slice(place).ok())
            .collect();
        Ok(Self(Some(Several {
            processes,
            collective,
            to_read: Vec::new(),
            communication: Communication { library, ranks },
        })))
    }

    /// How the ranks exchange, if there are several.
    pub(crate) fn communication(&self) -> Option<&Communication> {
        self.0.as_ref().map(|several| &several.communication)
    }

    /// The number of this rank, from 0. Rank 0 alone writes to the run directory.
    pub(crate) fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |several| several.processes.rank())
    }

    /// How many ranks there are.
    pub(crate) fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |several| several.processes.world_size())
    }

    /// Tells the others that this rank begins `step`.
    pub(crate) fn begin(&self, step: u64) {
        if let Some(several) = &self.0 {
            several.processes.monitor().at_step(step);
        }
    }

    /// Whether the ranks sum from device to device, so that it can be done during other work.
    pub(crate) fn sum_on_devices(&self) -> bool {
        self.0.as_ref().is_some_and(|several| several.collective.is_some())
    }

    /// Runs `pass`, the last micro-step of a step. Where ranks sum on their devices, the gradients of each block begin
    /// to be summed while those of the blocks in front of it are computed: with the micro-steps `before`, from which
    /// they are taken out. Gives what `pass` gives, and them.
    pub(crate) fn sum_blocks<T>(
        &mut self,
        model: Arc<Gpt2<B>>,
        before: &mut GradientSum<B>,
        pass: impl FnOnce() -> T,
    ) -> (T, GradientList<B>)
    where
        B: Gpt2Backend,
    {
        let collective = self.0.as_mut().and_then(|several| several.collective.take());
        let Some(collective) = collective else {
            return (pass(), Vec::new());
        };
        let blocks = BlockSums {
            collective,
            left: model.blocks_in_one_operation(),
            model,
            before: std::mem::replace(before, GradientSum::Empty),
            sums: Vec::new(),
        };
        let (blocks, output) = take_block_gradients(blocks, pass);
        if let Some(several) = &mut self.0 {
            several.collective = Some(blocks.collective);
        }
        *before = blocks.before;
        (output, blocks.sums)
    }

    /// Sums a step over all ranks, in their order where sums go through the host, and tells what each wants: `wish` is
    /// why this rank would stop after it. The step is the sum of its micro-steps' losses, `[1]`, and that of their
    /// gradients; `summed` are [those of the blocks](Self::sum_blocks), where they are no more among them.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub(crate) fn sum(
        &mut self,
        model: &Gpt2<B>,
        loss: Tensor<B::InnerBackend, 1>,
        gradients: GradientSum<B>,
        summed: GradientList<B>,
        wish: Option<StopReason>,
    ) -> Result<(Tensor<B::InnerBackend, 1>, GradientsParams, Exchange), TrainError> {
        let Some(several) = &mut self.0 else {
            return Ok((loss, gradients.finish(model), Exchange::default()));
        };
        let mut wishes = vec![NOTHING; several.processes.world_size()];
        wishes[several.processes.rank()] = match wish {
            None | Some(StopReason::Finished) => NOTHING,
            Some(StopReason::TimeLimit) => TIME_LIMIT,
            Some(StopReason::Requested(_)) => REQUESTED,
        };
        let mut exchange = Exchange {
            own: wish,
            ..Exchange::default()
        };
        let (ids, gradients): (Vec<_>, Vec<_>) = gradients.list(model).into_iter().unzip();
        let wishes = Tensor::<B::InnerBackend, 1>::from_floats(wishes.as_slice(), &loss.device());
        let mut tensors = [loss, wishes].map(|tensor| tensor.into_primitive().tensor()).to_vec();
        tensors.extend(gradients);
        let sums = if let Some(collective) = &mut several.collective {
            let sums = collective.sum(tensors);
            several.to_read.extend([sums[1].clone(), collective.wait()]);
            sums
        } else {
            let (sums, times) = sum_on_host::<B::InnerBackend>(&mut several.processes, tensors)?;
            exchange.wishes = B::InnerBackend::to_host(sums[1].clone());
            exchange.on_host = times;
            sums
        };
        let mut sums = sums.into_iter();
        let loss = sums.next().expect("as many sums as tensors");
        let sums = ids.into_iter().zip(sums.skip(1));
        let gradients = of_tensors(model, summed.into_iter().chain(sums));
        Ok((
            Tensor::from_primitive(TensorPrimitive::Float(loss)),
            gradients,
            exchange,
        ))
    }

    /// What is to be read back behind the own numbers of the step that is being queued.
    pub(crate) fn take_to_read(&mut self) -> Vec<FloatTensor<B::InnerBackend>> {
        let to_read = self.0.as_mut().map(|several| std::mem::take(&mut several.to_read));
        to_read.unwrap_or_default()
    }

    /// Replaces each of `tensors` by that of its owner among the ranks. If an error comes of it, some are replaced and the others
    /// are as they were.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub(crate) fn broadcast(
        &mut self,
        tensors: &mut Vec<FloatTensor<B::InnerBackend>>,
        owners: &[usize],
        exchange: &mut Exchange,
    ) -> Result<(), TrainError> {
        let Some(several) = &mut self.0 else { return Ok(()) };
        if let Some(collective) = &mut several.collective {
            *tensors = collective.broadcast(std::mem::take(tensors), owners);
            several.to_read.push(collective.wait());
            return Ok(());
        }
        let rank = several.processes.rank();
        let mut own = Vec::new();
        for (tensor, _) in tensors.iter().zip(owners).filter(|(_, owner)| **owner == rank) {
            own.extend(B::InnerBackend::to_host(tensor.clone()));
        }
        let began = Instant::now();
        let shares = several.processes.all_gather(bytemuck::cast_slice::<f32, u8>(&own))?;
        exchange.on_host[1] += began.elapsed();
        let mut shares: Vec<&[u8]> = shares.iter().map(Vec::as_slice).collect();
        for (tensor, &owner) in tensors.iter_mut().zip(owners) {
            let (bytes, rest) = shares[owner].split_at(size_of::<f32>() * tensor.shape().num_elements());
            shares[owner] = rest;
            if owner != rank {
                let device = B::InnerBackend::float_device(tensor);
                *tensor = of_host::<B::InnerBackend>(bytemuck::pod_collect_to_vec(bytes), tensor.shape(), &device);
            }
        }
        Ok(())
    }

    /// What each rank has of something, in their order, on rank 0; nothing on the others.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub(crate) fn gather_on_first(&mut self, own: Vec<f32>) -> Result<Vec<Vec<f32>>, TrainError> {
        let Some(several) = &mut self.0 else {
            return Ok(vec![own]);
        };
        let others = several.processes.gather_on_first(bytemuck::cast_slice(&own))?;
        if several.processes.rank() > 0 {
            return Ok(Vec::new());
        }
        let others = others.into_iter().map(|values| bytemuck::pod_collect_to_vec(&values));
        Ok(std::iter::once(own).chain(others).collect())
    }

    /// Why all ranks stop after a step, if they do. `read` are the numbers that came back from the device behind the step's own.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if the sums could not be queued.
    pub(crate) fn stop_reason(&self, exchange: &Exchange, read: &[f32]) -> Result<Option<StopReason>, TrainError> {
        let Some(several) = &self.0 else { return Ok(None) };
        if let Some(collective) = &several.collective {
            collective
                .check()
                .map_err(|CollectiveError(message)| several.processes.monitor().cause(message))?;
        }
        let ranks = several.processes.world_size();
        let wishes = read.get(..ranks).unwrap_or(&exchange.wishes);
        debug_assert_eq!(wishes.len(), ranks);
        Ok(stop_reason(wishes, several.processes.rank(), exchange.own.as_ref()))
    }

    /// Where the time of a step went between ranks. `read` are the numbers that came back from the device behind the
    /// step's own. After [`stop_reason`](Self::stop_reason), once a step.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if the device cannot tell.
    pub(crate) fn exchange_times(&mut self, exchange: &Exchange, read: &[f32]) -> Result<ExchangeTimes, TrainError> {
        let Some(several) = &mut self.0 else {
            return Ok(ExchangeTimes::default());
        };
        let Some(collective) = &mut several.collective else {
            let [wait, communication] = exchange.on_host;
            return Ok(ExchangeTimes {
                wait: Some(wait),
                communication: Some(communication),
                overlapped: None,
            });
        };
        let [mut exposed, mut total] = [0.0; 2];
        for waited in &read[several.processes.world_size()..] {
            exposed += f64::from(*waited);
            total += collective
                .take_milliseconds()
                .map_err(|CollectiveError(message)| several.processes.monitor().cause(message))?;
        }
        let duration = |milliseconds: f64| Duration::from_secs_f64(milliseconds.max(0.0) / 1e3);
        Ok(ExchangeTimes {
            wait: None,
            communication: Some(duration(exposed)),
            overlapped: Some(duration(total - exposed)),
        })
    }

    /// Sends rank 0 where the time of a step went on this rank, without waiting for it.
    pub(crate) fn send(&self, times: &RankStep) {
        if let Some(several) = &self.0 {
            several
                .processes
                .monitor()
                .note(serde_json::to_string(times).unwrap_or_default());
        }
    }

    /// What the ranks have sent since the last call, as lines of JSON. On rank 0.
    pub(crate) fn received(&self) -> Vec<String> {
        let notes = self.0.as_ref().map(|several| several.processes.monitor().take_notes());
        notes.unwrap_or_default().into_iter().map(|(_, note)| note).collect()
    }

    /// What all ranks have of something, in order: of `own` is every so-many-th.
    pub(crate) fn in_order<T: Serialize + DeserializeOwned>(&mut self, own: Vec<T>) -> Result<Vec<T>, TrainError> {
        let Some(several) = &mut self.0 else { return Ok(own) };
        let own = serde_json::to_vec(&own).expect("the keys are text");
        let shares = several.processes.all_gather(&own)?;
        let mut shares: Vec<_> = shares
            .iter()
            .map(|share| serde_json::from_slice::<Vec<T>>(share).expect("the same program wrote it"))
            .map(Vec::into_iter)
            .collect();
        // One of each share after the other, until a share has none left.
        let ranks = shares.len();
        Ok((0..).map_while(|nth: usize| shares[nth % ranks].next()).collect())
    }

    /// Checks that all ranks have the same weights, to the last bit.
    ///
    /// # Errors
    /// [`TrainError::ReplicasDiffer`].
    pub(crate) fn check_replicas(&mut self, model: &Gpt2<B>, step: u64) -> Result<(), TrainError> {
        let Some(several) = &mut self.0 else { return Ok(()) };
        let mut hash = HashParameters(0);
        visit_parameters(model, &mut hash);
        let hashes = several.processes.all_gather(&hash.0.to_le_bytes())?;
        match hashes.iter().position(|other| *other != hashes[0]) {
            Some(rank) => Err(TrainError::ReplicasDiffer { rank, step }),
            None => Ok(()),
        }
    }

    /// Waits until all ranks have come to the end: a rank that ends before would be taken for lost.
    pub(crate) fn finish(&self) -> Result<(), TrainError> {
        match &self.0 {
            Some(several) => Ok(several.processes.monitor().finish()?),
            None => Ok(()),
        }
    }
}

/// Lets the ranks meet on their devices, where the backend sums there: by what, and what they meet in.
fn connect_devices<B: TrainingBackend>(
    processes: &mut ProcessGroup,
    device: &B::Device,
) -> Result<Option<(String, OnDevices<B>)>, TrainError> {
    let library = all_can(processes, B::collectives())?;
    let Some(library) = library else { return Ok(None) };
    let id = match processes.rank() {
        0 => library.unique_id(),
        _ => Ok(Vec::new()),
    };
    let id = all_can(processes, id)?;
    let id = processes.broadcast(&id)?;
    let joined = library.join(device, &id, processes.rank(), processes.world_size());
    Ok(Some((library.description(), all_can(processes, joined)?)))
}

/// What this rank has come to, if all ranks have come to something; else all ranks end together.
fn all_can<T>(processes: &mut ProcessGroup, own: Result<T, CollectiveError>) -> Result<T, TrainError> {
    let message = own
        .as_ref()
        .map_or_else(|CollectiveError(message)| message.as_str(), |_| "");
    let all = processes.all_gather(message.as_bytes())?;
    let failed = all.iter().position(|message| !message.is_empty());
    match (own, failed) {
        (Ok(own), None) => Ok(own),
        (_, failed) => {
            let rank = failed.unwrap_or(processes.rank());
            processes.monitor().finish()?;
            Err(TrainError::RankCannotBegin {
                rank,
                message: String::from_utf8_lossy(&all[rank]).into_owned(),
            })
        }
    }
}

/// Sums tensors in the order of the ranks, so that the sums are those of one process that accumulates as many
/// micro-steps. Gives how long the slowest rank was waited for too, and how long the exchange took after that.
fn sum_on_host<B: Gpt2Backend>(
    processes: &mut ProcessGroup,
    tensors: Vec<FloatTensor<B>>,
) -> Result<(Vec<FloatTensor<B>>, [Duration; 2]), TrainError> {
    let places: Vec<_> = tensors
        .iter()
        .map(|tensor| (tensor.shape(), B::float_device(tensor)))
        .collect();
    let mut values = Vec::new();
    for tensor in tensors {
        values.extend(B::to_host(tensor));
    }
    let began = Instant::now();
    let wait = processes.all_reduce_sum(&mut values)?;
    let times = [wait, began.elapsed().saturating_sub(wait)];
    let mut values = values.as_slice();
    let sums = places.into_iter().map(|(shape, device)| {
        let (own, rest) = values.split_at(shape.num_elements());
        values = rest;
        of_host::<B>(own.to_vec(), shape, &device)
    });
    Ok((sums.collect(), times))
}

/// Begins to sum the gradients of each block as soon as the backward pass has queued them.
struct BlockSums<B: AutodiffBackend> {
    collective: OnDevices<B::InnerBackend>,
    model: Arc<Gpt2<B>>,
    /// The blocks that the backward pass has not come to.
    left: Vec<usize>,
    /// The micro-steps before.
    before: GradientSum<B>,
    sums: GradientList<B>,
}

impl<B> TakeBlockGradients<B::InnerBackend> for BlockSums<B>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    fn take(&mut self, gradients: Vec<FloatTensor<B::InnerBackend>>) {
        let block = self.left.pop().expect("each block comes once");
        let ids = list_param_ids(&self.model.h[block]);
        let gradients = ids.into_iter().zip(gradients).collect();
        let (ids, gradients): (Vec<_>, _) = self.before.take_with(&self.model, gradients).into_iter().unzip();
        self.sums.extend(ids.into_iter().zip(self.collective.sum(gradients)));
    }
}

/// A tensor of these elements.
fn of_host<B: Backend>(values: Vec<f32>, shape: Shape, device: &B::Device) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values, shape), device)
}

/// What the ranks' wishes come to. `own` says in whose name this rank was asked to stop.
fn stop_reason(wishes: &[f32], rank: usize, own: Option<&StopReason>) -> Option<StopReason> {
    let (by, wish) = wishes.iter().enumerate().find(|(_, wish)| **wish != NOTHING)?;
    Some(match own {
        _ if *wish == TIME_LIMIT => StopReason::TimeLimit,
        Some(own) if by == rank => own.clone(),
        _ => StopReason::Requested(format!("a signal to rank {by}")),
    })
}

/// CRC-32C over the bytes of every parameter.
struct HashParameters(u32);

impl<B: AutodiffBackend> NamedVisitor<B> for HashParameters
where
    B::InnerBackend: Gpt2Backend,
{
    fn visit<const D: usize>(&mut self, _: &str, param: &Param<Tensor<B, D>>) {
        self.0 = crc32c::crc32c_append(self.0, bytemuck::cast_slice(&to_host(param.val().inner())));
    }
}

impl From<RanksError> for TrainError {
    fn from(error: RanksError) -> Self {
        Self::Ranks(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::tiny_config;
    use burn::backend::Autodiff;
    use burn::tensor::Int;
    use burn_ndarray::{NdArray, NdArrayDevice};
    use std::collections::HashMap;

    type Cpu = Autodiff<NdArray>;

    /// Two ranks that have the same.
    struct Twice;

    impl Collective<FloatTensor<NdArray>> for Twice {
        fn sum(&mut self, tensors: Vec<FloatTensor<NdArray>>) -> Vec<FloatTensor<NdArray>> {
            let twice = |tensor: FloatTensor<NdArray>| <NdArray>::float_add(tensor.clone(), tensor);
            tensors.into_iter().map(twice).collect()
        }

        fn broadcast(&mut self, tensors: Vec<FloatTensor<NdArray>>, _: &[usize]) -> Vec<FloatTensor<NdArray>> {
            tensors
        }

        fn wait(&mut self) -> FloatTensor<NdArray> {
            unreachable!("nothing waits within a backward pass")
        }

        fn take_milliseconds(&mut self) -> Result<f64, CollectiveError> {
            Ok(0.0)
        }

        fn check(&self) -> Result<(), CollectiveError> {
            Ok(())
        }
    }

    #[test]
    fn blocks_are_summed_within_the_backward_pass_with_the_micro_steps_before() {
        let device = NdArrayDevice::Cpu;
        let model = tiny_config(2).init::<Cpu>(1, &device).unwrap();
        let pass = |token: i32| {
            let tokens = Tensor::<Cpu, 2, Int>::from_data([[token, 2, 3]], &device);
            let loss = model.loss(tokens.clone(), tokens);
            GradientsParams::from_grads(loss.backward(), &model)
        };
        let of_blocks: Vec<_> = model.h.iter().flat_map(list_param_ids).collect();
        let values = |gradients: GradientList<Cpu>| {
            let values = gradients.into_iter().map(|(id, tensor)| (id, NdArray::to_host(tensor)));
            values.collect::<HashMap<_, _>>()
        };
        for micro_steps in 1..=3 {
            let before = || (1..micro_steps).fold(GradientSum::Empty, |sum, token| sum.add(&model, pass(token)));
            let mut expected = values(before().add(&model, pass(0)).list(&model));
            for id in &of_blocks {
                expected.get_mut(id).unwrap().iter_mut().for_each(|value| *value *= 2.0);
            }
            let blocks = BlockSums {
                collective: Box::new(Twice),
                model: Arc::new(model.clone()),
                left: vec![0, 1],
                before: before(),
                sums: Vec::new(),
            };
            let (blocks, rest) = take_block_gradients(blocks, || pass(0));
            let mut found = blocks.before.add(&model, rest).list(&model);
            assert_eq!((blocks.sums.len(), found.len()), (24, 4));
            found.extend(blocks.sums);
            assert_eq!(values(found), expected, "{micro_steps} micro-steps");
        }
    }

    #[test]
    fn the_first_rank_that_wants_to_stop_says_why() {
        let own = StopReason::Requested("SIGTERM".into());
        assert_eq!(stop_reason(&[NOTHING, NOTHING], 0, None), None);
        assert_eq!(
            stop_reason(&[TIME_LIMIT, REQUESTED], 1, Some(&own)),
            Some(StopReason::TimeLimit)
        );
        assert_eq!(stop_reason(&[NOTHING, REQUESTED], 1, Some(&own)), Some(own.clone()));
        assert_eq!(
            stop_reason(&[NOTHING, REQUESTED], 0, None),
            Some(StopReason::Requested("a signal to rank 1".into()))
        );
    }
}
