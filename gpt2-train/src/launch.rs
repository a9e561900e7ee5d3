//! Launching a run: from settings to its outcome, any number of times in a process. The command, benchmarks and tests all
//! start here.

use crate::announcement::KernelAnnouncement;
use crate::checkpoint::{Checkpoint, Checkpoints, RunState};
use crate::checkpoint_writer::CheckpointWriter;
use crate::config::{Devices, RunConfig};
use crate::data_source::{Data, DataSource, Streams};
use crate::error::TrainError;
use crate::evaluate::EvaluationSet;
use crate::group::{Group, Shared};
use crate::learner::{DashboardSetup, LearnerStepper, with_dashboard};
use crate::observer::{Lines, Observer, Silent};
use crate::optimizer::{AdamW, Shards};
use crate::plan::{DataSummary, Environment, ResumeRemark, RunPlan, check_threads};
use crate::rank_log::RankLog;
use crate::ranks::Ranks;
use crate::report::{Provenance, RunFacts, write_run_report};
use crate::run_dir::{RunDir, RunPaths};
use crate::step_log::StepLog;
use crate::step_loop::{Outcome, StepLoop};
use crate::stop::StopRequest;
use crate::tasks::TaskSet;
use crate::tensorboard::TensorBoard;
use burn::tensor::backend::AutodiffBackend;
use gpt2_backend::{Chosen, DeviceKind, HostFacts, TrainingJob, dispatch, thread_pool};
use gpt2_data::{Loader, LoaderConfig};
use gpt2_eval::Task;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_model::weights::{self, Weights};
use gpt2_model::{Gpt2, InferenceBackend};
use gpt2_ranks::{ProcessGroup, RankInfo};
use gpt2_records::RankPlace;
use rayon::ThreadPool;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// Where runs go that name no directory.
const RUNS: &str = "runs";

/// A run, decided: nothing is written and nothing computed before [`Launch::run`].
pub struct Launch {
    decided: Decided,
    /// The run directory, once it is taken.
    directory: Option<RunDir>,
    /// Whether all ranks know that it is.
    is_claimed: bool,
    /// The checkpoint to go on from.
    resume: Option<Checkpoint>,
    /// What should be said before a run goes on.
    remark: Option<ResumeRemark>,
    /// Checkpoints that were passed over because they are damaged.
    damaged: Vec<TrainError>,
    /// The ranks that train together, if there are several.
    group: Option<Group>,
    began: (SystemTime, Instant),
}

/// Everything about a run but where it starts from.
struct Decided {
    plan: RunPlan,
    chosen: Chosen,
    /// What the device has for this process, where that is known.
    memory_bytes: Option<u64>,
    data: Data,
    tasks: Vec<Task>,
    /// The CPU threads of this run alone.
    pool: ThreadPool,
}

/// How a run is watched.
pub enum View {
    /// Burn's dashboard, which takes over the terminal; where it cannot, lines to here.
    Dashboard(Box<dyn Write + Send>),
    /// By anyone.
    Observer(Box<dyn Observer + Send>),
}

impl View {
    /// Not at all.
    pub fn silent() -> Self {
        Self::Observer(Box::new(Silent))
    }
}

/// What surrounds a run without changing it.
pub struct Surroundings {
    /// How it is watched.
    pub view: View,
    /// Asks it to save and stop.
    pub stop: StopRequest,
    /// Says that kernels are being compiled, until the first figures are there.
    pub announcement: Option<KernelAnnouncement>,
    /// What stays of the run besides its log.
    pub keep: Keep,
    /// Whether TensorBoard's event files are written too.
    pub tensorboard: bool,
}

/// What stays of a run besides its plan and its log.
#[derive(Debug, Clone)]
pub enum Keep {
    /// Checkpoints, and a report that says this of the program.
    Everything(Provenance),
    /// The report alone, as of a measurement.
    Report(Provenance),
    /// Nothing.
    Nothing,
}

impl Keep {
    fn checkpoints(&self) -> bool {
        matches!(self, Self::Everything(_))
    }

    fn provenance(self) -> Option<Provenance> {
        match self {
            Self::Everything(provenance) | Self::Report(provenance) => Some(provenance),
            Self::Nothing => None,
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What it came to.
    pub outcome: Outcome,
    /// What it did.
    pub plan: RunPlan,
    /// What it trained on.
    pub data: DataSummary,
    /// Where it computed.
    pub chosen: Chosen,
    /// Its directory, still locked.
    pub directory: RunDir,
}

impl Launch {
    /// Decides a new run.
    ///
    /// # Errors
    /// Everything that can be wrong with settings, data, weights and device, before anything is written.
    pub fn new(config: &RunConfig) -> Result<Self, TrainError> {
        Self::on(config, source(config))
    }

    /// [`Launch::new`] on data that no setting names.
    ///
    /// # Errors
    /// Those of [`Launch::new`].
    pub fn on(config: &RunConfig, data: DataSource) -> Result<Self, TrainError> {
        let launch = Self::whatever_the_memory(config, data)?;
        launch.decided.check_memory()?;
        Ok(launch)
    }

    /// [`Launch::on`] without refusing what is predicted not to fit into the device's memory: for studies of what does.
    ///
    /// # Errors
    /// The others of [`Launch::new`].
    pub fn whatever_the_memory(config: &RunConfig, data: DataSource) -> Result<Self, TrainError> {
        let began = (SystemTime::now(), Instant::now());
        let beginning = Beginning::of_new(config, &data)?;
        Self::decide(config.clone(), Some(data), beginning, None, began)
    }

    /// Decides to go on with a run: its saved settings with `config` laid over them, from its newest whole checkpoint. The
    /// run is locked from now on.
    ///
    /// # Errors
    /// Those of [`Launch::new`], and if there is no such run, it is in use, or it would become another one.
    pub fn resume(config: RunConfig) -> Result<Self, TrainError> {
        let began = (SystemTime::now(), Instant::now());
        let beginning = Beginning::of_saved(&config)?;
        let launch = Self::decide(config, None, beginning, None, began)?;
        launch.decided.check_memory()?;
        Ok(launch)
    }

    /// Decides as one of several ranks on a new run, or with `resume` on going on with one. Rank 0 says where, and all must come
    /// to the same plan.
    ///
    /// # Errors
    /// Those of [`Launch::new`] and [`Launch::resume`] of whichever rank: rank 0 knows them all, and the others give
    /// [`TrainError::OtherRank`] where they have none of their own.
    pub fn in_group(config: RunConfig, resume: bool, group: Group) -> Result<Self, TrainError> {
        let data = (!resume).then(|| source(&config));
        Self::of_ranks(config, data, group, |launch| launch.decided.check_memory())
    }

    /// [`Launch::whatever_the_memory`] as one of several ranks.
    ///
    /// # Errors
    /// Those of [`Launch::in_group`].
    pub fn in_group_whatever_the_memory(config: RunConfig, data: DataSource, group: Group) -> Result<Self, TrainError> {
        Self::of_ranks(config, Some(data), group, |_| Ok(()))
    }

    /// As one of several ranks, on a new run on `data` or, without, on one that goes on.
    fn of_ranks(
        mut config: RunConfig,
        data: Option<DataSource>,
        mut group: Group,
        check_memory: impl Fn(&Self) -> Result<(), TrainError>,
    ) -> Result<Self, TrainError> {
        let began = (SystemTime::now(), Instant::now());
        if !matches!(&config.devices, Some(devices) if devices.ranks() == group.info().world_size) {
            config.devices = Some(Devices::Count(group.info().world_size));
        }
        let first = (group.rank() == 0).then(|| match &data {
            Some(data) => Beginning::of_new(&config, data),
            None => Beginning::of_saved(&config),
        });
        let (Shared::Own(beginning) | Shared::Told(beginning)) = group.of_first(first)?;
        let launch = Self::decide(config, data, beginning, Some(group.info()), began);
        let launch = launch.and_then(|launch| check_memory(&launch).map(|()| launch));
        let launch = group.agree(launch, |launch| launch.decided.facts())?;
        Ok(Self {
            group: Some(group),
            ..launch
        })
    }

    fn decide(
        config: RunConfig,
        data: Option<DataSource>,
        beginning: Beginning,
        rank: Option<&RankInfo>,
        began: (SystemTime, Instant),
    ) -> Result<Self, TrainError> {
        let Beginning {
            run,
            saved,
            checkpoint,
            directory,
            damaged,
        } = beginning;
        let plan = RunPaths::new(&run).plan();
        let config = match &saved {
            Some(saved) => {
                saved.check_resume(&config, &plan)?;
                saved.clone().resumed_with(config)?
            }
            None => config,
        };
        let data = data.unwrap_or_else(|| source(&config));
        let weights = checkpoint.clone().or_else(|| config.init.clone());
        let decided = Decided::new(&config, run, data, weights.as_deref(), rank)?;
        if checkpoint.is_none()
            && let Some(init) = &decided.plan.init
        {
            // Their headers alone. The values are read when there is a run directory and a device.
            Weights::open(init)?;
        }
        let mut remark = None;
        let resume = checkpoint.map(Checkpoint::checked).transpose()?;
        if let (Some(saved), Some(checkpoint)) = (&saved, &resume) {
            decided.plan.check_resume(saved, &plan)?;
            if let Data::Open(streams) = &decided.data {
                check_data(checkpoint, streams)?;
            }
            remark = decided.plan.resume_remark(saved, checkpoint.state.step);
        }
        Ok(Self {
            decided,
            directory,
            is_claimed: false,
            resume,
            remark,
            damaged,
            group: None,
            began,
        })
    }

    /// The devices that a run to go on with was last trained on, if they were several.
    pub fn saved_devices(config: &RunConfig) -> Option<Devices> {
        let plan = RunPaths::new(Beginning::run_of_saved(config)).plan();
        RunConfig::from_toml_file(&plan).ok()?.devices
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, Group::rank)
    }

    /// What is known of this rank, if it is one of several.
    pub fn group(&self) -> Option<&RankInfo> {
        self.group.as_ref().map(Group::info)
    }

    /// What the run will do.
    pub fn plan(&self) -> &RunPlan {
        &self.decided.plan
    }

    /// Where it will compute.
    pub fn chosen(&self) -> &Chosen {
        &self.decided.chosen
    }

    /// What it will train on.
    pub fn data(&self) -> &DataSummary {
        self.decided.data.summary()
    }

    /// What should be said before the run goes on, and the checkpoint that it goes on from.
    pub fn resume_remark(&self) -> Option<(&ResumeRemark, &Path)> {
        Some((self.remark.as_ref()?, self.resume.as_ref()?.path()))
    }

    /// Checkpoints that are newer than the one to go on from, and what is wrong with each.
    pub fn damaged_checkpoints(&self) -> &[TrainError] {
        &self.damaged
    }

    /// Takes the run directory, which [`Launch::run`] does otherwise: no other process trains in it from now on.
    ///
    /// # Errors
    /// Those of [`RunDir::create`].
    pub fn claim(&mut self) -> Result<(), TrainError> {
        let run = &self.decided.plan.run;
        let is_first = self.group.as_ref().is_none_or(|group| group.rank() == 0);
        let directory = match self.directory.take() {
            Some(directory) => Ok(directory),
            None if is_first => RunDir::create(run),
            None => Ok(RunDir::of_other_rank(run)),
        };
        self.is_claimed = true;
        self.directory = Some(match &mut self.group {
            Some(group) => group.agree(directory, |_| Vec::new())?,
            None => directory?,
        });
        Ok(())
    }

    /// Checks that [`Launch::claim`] would take the run directory, and leaves nothing behind. Of several ranks, all
    /// must call it.
    ///
    /// # Errors
    /// Those of [`Launch::claim`].
    pub fn check_directory(&mut self) -> Result<(), TrainError> {
        let checked = if self.directory.is_none() && self.rank() == 0 {
            RunDir::check_creatable(&self.decided.plan.run)
        } else {
            Ok(())
        };
        match &mut self.group {
            Some(group) => group.agree(checked, |()| Vec::new()),
            None => checked,
        }
    }

    /// Ends without training; of several ranks, all must.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if another is lost meanwhile.
    pub fn leave(self) -> Result<(), TrainError> {
        match &self.group {
            Some(group) => Ok(group.monitor().finish()?),
            None => Ok(()),
        }
    }

    /// Trains until the plan's end, a limit, or a request to stop, and saves a last checkpoint. The run has CPU threads of
    /// its own.
    ///
    /// # Errors
    /// Whatever stops a run. The newest checkpoint is then the way back.
    pub fn run(mut self, surroundings: Surroundings) -> Result<Finished, TrainError> {
        let ranks = self.decided.plan.machine.ranks;
        if ranks > 1 && self.group.is_none() {
            return Err(TrainError::NotInGroup { ranks });
        }
        if !self.is_claimed {
            self.claim()?;
        }
        let monitor = self.group.as_ref().map(|group| group.monitor().clone());
        let finished = self.train(surroundings);
        match (&finished, &monitor) {
            // All ranks have come to this error, and none is lost.
            (Err(TrainError::NonFinite { .. } | TrainError::ReplicasDiffer { .. }), Some(monitor)) => {
                monitor.finish()?;
            }
            (Err(error), Some(monitor)) => monitor.fail(&error.to_string()),
            _ => {}
        }
        finished
    }

    fn train(self, surroundings: Surroundings) -> Result<Finished, TrainError> {
        let Self {
            decided:
                Decided {
                    plan,
                    chosen,
                    data,
                    tasks,
                    pool,
                    ..
                },
            directory,
            resume,
            mut group,
            began,
            ..
        } = self;
        let mut directory = directory.expect("claimed before");
        let is_first = group.as_ref().is_none_or(|group| group.rank() == 0);
        let Surroundings {
            view,
            stop,
            announcement,
            keep,
            tensorboard,
        } = surroundings;
        let data =
            pool.install(|| open_data(data, &directory.data(), plan.intervals.eval_every > 0, group.as_mut()))?;
        if let Some(checkpoint) = &resume {
            check_data(checkpoint, &data)?;
        }
        if is_first {
            directory.begin()?;
        }
        let summary = data.summary.clone();
        let of_device = chosen.peak_flops(plan.machine.precision);
        let peak_flops = of_device.map(|peak| peak * plan.machine.ranks as f64);
        let job = Session {
            plan: plan.clone(),
            paths: (*directory).clone(),
            chosen: &chosen,
            peak_flops,
            data,
            tasks,
            resume,
            view,
            stop,
            announcement,
            keeps: keep.checkpoints(),
            tensorboard: tensorboard && is_first,
            place: RankPlace {
                host: HostFacts::detect().hostname,
                local_rank: group.as_ref().map_or(0, |group| group.info().local_rank),
                device: chosen.device.name.clone(),
                nvlinks: group.as_ref().and_then(|_| chosen.nvlinks()),
            },
            processes: group.map(Group::into_processes),
        };
        let setup_sec = began.1.elapsed().as_secs_f64();
        let mut outcome = pool.install(|| dispatch(&chosen, job))??;
        directory.keep();
        outcome.phases.setup_sec += setup_sec;
        if is_first && let Some(provenance) = keep.provenance() {
            let facts = RunFacts {
                plan: &plan,
                data: &summary,
                chosen: &chosen,
                peak_flops,
                started: began.0,
            };
            write_run_report(&directory, &facts, &outcome, provenance)?;
        }
        Ok(Finished {
            outcome,
            plan,
            data: summary,
            chosen,
            directory,
        })
    }
}

/// Where a run begins, as rank 0 decides for all.
#[derive(Serialize, Deserialize)]
struct Beginning {
    run: PathBuf,
    /// Of a run that goes on: its settings.
    saved: Option<RunConfig>,
    /// The checkpoint to go on from.
    checkpoint: Option<PathBuf>,
    /// The run directory, where it is taken already.
    #[serde(skip)]
    directory: Option<RunDir>,
    #[serde(skip)]
    damaged: Vec<TrainError>,
}

impl Beginning {
    fn of_new(config: &RunConfig, data: &DataSource) -> Result<Self, TrainError> {
        let run = match &config.run {
            Some(run) => run.clone(),
            None => RunPaths::unused(Path::new(RUNS), &data.name()),
        };
        RunDir::check_unused(&RunPaths::new(&run))?;
        Ok(Self {
            run,
            saved: None,
            checkpoint: None,
            directory: None,
            damaged: Vec::new(),
        })
    }

    fn run_of_saved(config: &RunConfig) -> PathBuf {
        match &config.run {
            Some(run) => run.clone(),
            None => Path::new(RUNS).join(source(config).name()),
        }
    }

    /// The newest whole checkpoint of a run, which is locked from now on.
    fn of_saved(config: &RunConfig) -> Result<Self, TrainError> {
        let run = Self::run_of_saved(config);
        let directory = RunDir::resume(&run)?;
        let saved = RunConfig::from_plan(&directory.plan())?;
        let (checkpoint, damaged) = Checkpoints::open(directory.checkpoints())?.newest()?;
        Ok(Self {
            run,
            saved: Some(saved),
            checkpoint: Some(checkpoint.path().to_owned()),
            directory: Some(directory),
            damaged,
        })
    }
}

/// The streams of a run. Where it makes them itself, rank 0 does, and the others wait.
fn open_data(data: Data, dir: &Path, with_validation: bool, group: Option<&mut Group>) -> Result<Streams, TrainError> {
    let Some(group) = group else {
        return data.into_streams(dir, with_validation);
    };
    let streams = match data {
        Data::Unmade(_, summary) if group.rank() > 0 => {
            group.of_first::<bool>(None)?;
            Streams::open(dir, summary.name, with_validation)
        }
        Data::Unmade(..) => {
            let made = data.into_streams(dir, with_validation);
            let (told, streams) = match made {
                Ok(streams) => (Ok(true), Some(streams)),
                Err(error) => (Err(error), None),
            };
            group.of_first(Some(told))?;
            Ok(streams.expect("made"))
        }
        Data::Open(streams) => Ok(streams),
    };
    group.agree(streams, |streams| vec![format!("data = {}", streams.identity.sha256)])
}

/// Checks that a run goes on with the tokens that it was trained on.
fn check_data(checkpoint: &Checkpoint, streams: &Streams) -> Result<(), TrainError> {
    match &checkpoint.state.data {
        Some(expected) if *expected != streams.identity => Err(TrainError::DataChanged {
            path: streams.training.dir().to_owned(),
            expected: Box::new(expected.clone()),
            found: Box::new(streams.identity.clone()),
        }),
        _ => Ok(()),
    }
}

/// The data that the settings name.
fn source(config: &RunConfig) -> DataSource {
    config.data.clone().map_or(DataSource::Demo, DataSource::Directory)
}

impl Decided {
    /// Decides on a device and every setting, and opens the data. The model is like the `weights` to begin with.
    fn new(
        config: &RunConfig,
        run: PathBuf,
        data: DataSource,
        weights: Option<&Path>,
        rank: Option<&RankInfo>,
    ) -> Result<Self, TrainError> {
        let planned = config.devices.as_ref().map_or(1, Devices::ranks);
        let of_host = rank.map_or(planned, |rank| rank.local_world_size);
        let cores = (HostFacts::detect().cores / of_host).max(1);
        let threads = config.threads.unwrap_or(cores);
        check_threads(threads, cores)?;
        let pool = thread_pool(threads)?;
        let backend = config.backend.unwrap_or_default();
        let chosen = match (rank, &config.devices) {
            (Some(rank), Some(devices)) => Chosen::decide_of_several(backend, devices.index(rank.local_rank))?,
            _ => Chosen::decide(backend, config.device.unwrap_or(0))?,
        };
        let data = pool.install(|| data.open(config.eval_every != Some(0)))?;
        let environment = Environment {
            data: data.summary().clone(),
            default_run: run,
            auto_backend: chosen.backend,
            cores,
            device: chosen.device.index,
            memory_bytes: chosen.device.memory_of_process(of_host),
            memory_is_of_host: chosen.device.kind != DeviceKind::Gpu,
            init_model: weights.map(weights::load_config).transpose()?,
        };
        let plan = RunPlan::resolve(config, &environment)?;
        chosen.check_precision(plan.machine.precision)?;
        let tasks = plan.tasks.files().map(|file| file.read(plan.tasks.limit, &plan.model));
        let tasks = tasks.collect::<Result<_, _>>()?;
        Ok(Self {
            plan,
            chosen,
            memory_bytes: environment.memory_bytes,
            data,
            tasks,
            pool,
        })
    }

    /// What all ranks must have alike: the settings, but for where each finds its device and its data.
    fn facts(&self) -> Vec<String> {
        let alike = RunConfig {
            run: None,
            data: None,
            init: None,
            device: None,
            threads: None,
            ..self.plan.to_config()
        };
        let text = alike.to_toml().unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn check_memory(&self) -> Result<(), TrainError> {
        match self.memory_bytes {
            Some(available) => self.plan.check_memory(available),
            None => Ok(()),
        }
    }
}

/// A run on the backend that was chosen.
struct Session<'a> {
    plan: RunPlan,
    paths: RunPaths,
    chosen: &'a Chosen,
    peak_flops: Option<f64>,
    data: Streams,
    tasks: Vec<Task>,
    resume: Option<Checkpoint>,
    view: View,
    stop: StopRequest,
    announcement: Option<KernelAnnouncement>,
    keeps: bool,
    tensorboard: bool,
    processes: Option<ProcessGroup>,
    /// Where this process is, for the others.
    place: RankPlace,
}

impl TrainingJob for Session<'_> {
    type Output = Result<Outcome, TrainError>;

    fn run<B>(self, device: B::Device) -> Result<Outcome, TrainError>
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: InferenceBackend,
    {
        let plan = self.plan;
        let ranks = Ranks::<B>::connect(self.processes, &device, &self.place)?;
        let is_first = ranks.rank() == 0;
        B::InnerBackend::set_persistent_allocation(&device, true);
        B::InnerBackend::set_reuses_activations(plan.reuses_activations());
        let (model, optimizer, mut state) = starting_point::<B>(&plan, self.resume.as_ref(), &ranks, &device)?;
        state.data = Some(self.data.identity);
        let loader = LoaderConfig {
            batch: plan.batch.micro_batch,
            seq: plan.batch.seq,
            grad_accum: plan.batch.grad_accum,
            world_size: ranks.size(),
            rank: ranks.rank(),
            seed: plan.seed,
            prefetch: plan.batch.prefetch,
            workers: 1,
        };
        let loader = Loader::start(self.data.training, &loader, state.step)?;
        let validation = match self.data.validation {
            Some(stream) => EvaluationSet::new(
                stream,
                plan.batch.micro_batch,
                plan.batch.seq,
                plan.intervals.eval_batches,
            )?,
            None => EvaluationSet::default(),
        };
        // Nothing can go wrong with the start any more: from here on this is a run.
        if is_first {
            plan.save(&self.paths.plan(), &self.data.summary)?;
        }
        let tensorboard = if self.tensorboard {
            let hostname = HostFacts::detect().hostname.unwrap_or_default();
            let text = plan.to_toml(&self.data.summary)?;
            let dir = self.paths.tensorboard();
            Some(TensorBoard::create(&dir, &hostname, state.step, &text)?)
        } else {
            None
        };
        let log = if is_first {
            Some(StepLog::open(self.paths.metrics(), state.step)?)
        } else {
            None
        };
        let rank_log = if is_first && ranks.size() > 1 {
            Some(RankLog::open(self.paths.ranks(), state.step)?)
        } else {
            None
        };
        let lines = Lines::new(log_file(&self.paths, ranks.rank())?, plan.intervals.log_every);
        let mut stepper = LearnerStepper::new(model, optimizer.clone(), plan.schedule.clone(), state.step);
        let step_loop = StepLoop {
            paths: self.paths.clone(),
            device,
            probe: self.chosen.probe(),
            peak_flops: self.peak_flops,
            floor: self.data.summary.floor,
            loader,
            validation,
            tasks: TaskSet::new(self.tasks, ranks.rank(), ranks.size()),
            optimizer,
            ranks,
            stop: self.stop.clone(),
            log,
            rank_log,
            keeps: self.keeps,
            checkpoints: if self.keeps && is_first {
                let checkpoints = Checkpoints::open(self.paths.checkpoints())?;
                Some(CheckpointWriter::new(checkpoints, plan.intervals.keep))
            } else {
                None
            },
            state,
            plan: plan.clone(),
        };
        let observed = ((self.announcement, tensorboard), lines);
        match self.view {
            View::Observer(mut observer) => step_loop.run(&mut stepper, &mut (observed, observer.as_mut())),
            View::Dashboard(out) => {
                let lines = Lines::new(out, plan.intervals.log_every);
                let setup = DashboardSetup {
                    root: self.paths.root(),
                    has_floor: self.data.summary.floor.is_some(),
                    has_peak: self.peak_flops.is_some(),
                };
                let job = Box::new(move |stepper: &mut LearnerStepper<B>, dashboard: &mut dyn Observer| {
                    step_loop.run(stepper, &mut (observed, dashboard))
                });
                with_dashboard(stepper, &setup, &self.stop, lines, job)
            }
        }
    }
}

/// `log.txt`, or that of another rank than the first, to be appended to.
fn log_file(paths: &RunPaths, rank: usize) -> Result<std::fs::File, TrainError> {
    let path = match rank {
        0 => paths.log(),
        rank => paths.rank_log(rank),
    };
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|source| TrainError::io("open", path, source))
}

/// The model, its optimizer and where the run stands: from a checkpoint, from given weights, or from nothing.
fn starting_point<B>(
    plan: &RunPlan,
    resume: Option<&Checkpoint>,
    ranks: &Ranks<B>,
    device: &B::Device,
) -> Result<(Gpt2<B>, AdamW<B>, RunState), TrainError>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    let weights = resume.map(Checkpoint::path).or(plan.init.as_deref());
    let model = match weights {
        Some(path) => Weights::open(path)?.load(&plan.model, device)?,
        None => plan.model.init(plan.seed, device)?,
    };
    let model = model
        .with_precision(plan.machine.precision)
        .with_recompute(plan.machine.recompute)
        .with_operations(plan.machine.operations);
    let mut optimizer = AdamW::new(plan.optimizer);
    if plan.machine.optimizer_is_sharded() {
        optimizer = optimizer.sharded(Shards::of(&model, ranks.rank(), ranks.size()));
    }
    let state = match resume {
        Some(checkpoint) => {
            if checkpoint.state.step > 0 {
                checkpoint.restore_optimizer(&model, &optimizer)?;
            }
            checkpoint.state.clone()
        }
        None => RunState {
            seed: plan.seed,
            ..RunState::default()
        },
    };
    Ok((model, optimizer, state))
}
