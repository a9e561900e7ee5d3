//! `gpt2 train`: from flags to a plan, through a training session, to the report.

use crate::backend::{Chosen, Job, dispatch};
use crate::cli::TrainArgs;
use crate::command_line::new_run;
use crate::commands::summary;
use crate::diagnostics::{advise, note, warn};
use crate::error::CliError;
use crate::printer::print;
use crate::{init, signals, threads};
use burn::tensor::DType;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::Interrupter;
use gpt2_data::demo::{self, DemoOptions};
use gpt2_data::{Manifest, Split, TokenStream};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::{Precision, weights};
use gpt2_train::checkpoint::{Checkpoint, Checkpoints};
use gpt2_train::config::{BackendChoice, RunConfig};
use gpt2_train::hardware::HostFacts;
use gpt2_train::optimizer::TrainingBackend;
use gpt2_train::plan::{DataSummary, Environment, ResumeRemark, RunPlan};
use gpt2_train::renderer::Terminal;
use gpt2_train::run_dir::{RunDir, RunPaths};
use gpt2_train::{Display, Ending, Session, TrainError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Where runs go that name no directory.
const RUNS: &str = "runs";

/// The demo corpus's name, and its place in the run directory.
const DEMO: &str = "demo";
const DEMO_DATA: &str = "data";

/// Trains, or with `--dry-run` prints the plan.
pub(crate) fn run(args: &TrainArgs) -> Result<(), CliError> {
    let began = (SystemTime::now(), Instant::now());
    let settings = Settings::gather(args)?;
    // Before anything is read: the shards are checked by several threads.
    threads::set(settings.config.threads.unwrap_or_else(|| HostFacts::detect().cores))?;
    let chosen = Chosen::decide(
        settings.config.backend.unwrap_or_default(),
        settings.config.device.unwrap_or(0),
    )?;
    let data = settings.data()?;
    let plan = settings.plan(&chosen, data.summary())?;
    for warning in plan.warnings(data.summary()) {
        warn(&warning.to_string());
    }
    if args.dry_run {
        return print(plan.to_toml(data.summary())?.as_bytes());
    }
    if let Some(available) = chosen.probe().total_memory() {
        plan.check_memory(available)?;
    }

    let mut directory = if args.resume {
        RunDir::resume(&settings.run)?
    } else {
        RunDir::create(&settings.run)?
    };
    let resume = if args.resume {
        Some(newest_checkpoint(&directory)?)
    } else {
        None
    };
    if let (Some((saved, _)), Some(checkpoint)) = (&settings.saved, &resume)
        && let Some(remark) = plan.resume_remark(saved, checkpoint.state.step)
    {
        tell(&remark, &plan, directory.root(), checkpoint.path());
    }
    let data = data.into_streams(&directory, &plan)?;
    plan.save(&directory.plan(), &data.summary)?;

    let display = if args.quiet {
        Display::Quiet
    } else if args.plain || !Terminal::detect().takes_dashboard() {
        Display::Plain
    } else {
        Display::Dashboard
    };
    if display != Display::Quiet {
        note(&format!(
            "backend {} on {}: {}",
            chosen.backend, chosen.device.name, chosen.reason
        ));
        if let Some(how) = plan.without_kernels() {
            note(&how);
        }
        note(&format!("run directory {}", directory.root().display()));
    }
    let interrupter = Interrupter::new();
    let registered = signals::stop_on_signals(&interrupter);
    let peak_flops = chosen.peak_flops(plan.precision);
    let setup_sec = began.1.elapsed().as_secs_f64();
    let summary = data.summary.clone();
    let job = TrainJob {
        plan: plan.clone(),
        paths: (*directory).clone(),
        data,
        resume,
        display,
        interrupter,
        save: true,
    };
    let mut ending = dispatch(&chosen, job)?;
    drop(registered);
    directory.keep();
    ending.phases.setup_sec += setup_sec;
    summary::report(&directory, &plan, &summary, &chosen, peak_flops, &ending, began.0)?;
    if display != Display::Quiet {
        summary::print(&directory, &plan, &summary, &ending)?;
    }
    summary::warn_of_divergence(&directory, &plan, &ending.steps);
    Ok(())
}

/// Says what going on with a run comes to where that may not be what was meant, and how to train on with a new
/// schedule.
fn tell(remark: &ResumeRemark, plan: &RunPlan, run: &Path, checkpoint: &Path) {
    let steps = match remark {
        ResumeRemark::Finished { step, .. } => {
            note(&remark.to_string());
            *step
        }
        ResumeRemark::PastDecay { first, last, .. } => {
            warn(&remark.to_string());
            last + 1 - first
        }
    };
    let limit = if plan.max_tokens.is_some() {
        ("--max-tokens", (steps * plan.tokens_per_step()).to_string())
    } else {
        ("--steps", steps.to_string())
    };
    advise(&format!(
        "a new run from here has a schedule of its own: {}",
        new_run(run, Some(checkpoint), &[limit])
    ));
}

/// What was asked for, before anything is decided.
struct Settings {
    config: RunConfig,
    /// The settings of the run that is resumed, and their file.
    saved: Option<(RunConfig, PathBuf)>,
    run: PathBuf,
}

impl Settings {
    fn gather(args: &TrainArgs) -> Result<Self, CliError> {
        let mut config = match &args.config_file {
            Some(path) => RunConfig::from_toml_file(path)?.overlay(args.config.clone()),
            None => args.config.clone(),
        };
        let stem = match &config.data {
            Some(data) => data
                .file_name()
                .map_or_else(|| DEMO.into(), |name| name.to_string_lossy().into_owned()),
            None => DEMO.to_owned(),
        };
        let runs = Path::new(RUNS);
        let run = match &config.run {
            Some(run) => run.clone(),
            None if args.resume => runs.join(stem),
            None => RunPaths::unused(runs, &stem),
        };
        let mut saved = None;
        if args.resume {
            let path = RunPaths::existing(&run)?.plan();
            let past = RunConfig::from_toml_file(&path)?;
            past.check_resume(&config, &path)?;
            // A backend that was found by itself may be another one now; one that is asked for stays.
            config = past.clone().overlay(config);
            saved = Some((past, path));
        }
        config.run = Some(run.clone());
        Ok(Self { config, saved, run })
    }

    /// The data, opened if it is there; the demo's is made later, when its directory is ours.
    fn data(&self) -> Result<Data, CliError> {
        let Some(dir) = &self.config.data else {
            let DemoOptions {
                train_tokens,
                val_tokens,
                ..
            } = DemoOptions::default();
            return Ok(Data::Demo(DataSummary {
                name: DEMO.into(),
                train_tokens,
                val_tokens,
                floor: None,
            }));
        };
        let evaluates = self.config.eval_every != Some(0);
        Ok(Data::Given(Streams::open(dir, evaluates)?))
    }

    fn plan(&self, chosen: &Chosen, data: &DataSummary) -> Result<RunPlan, CliError> {
        let cores = HostFacts::detect().cores;
        if self.saved.is_none()
            && let Some(init) = &self.config.init
        {
            init::check(init)?;
        }
        let init_model = self.config.init.as_deref().map(weights::load_config).transpose()?;
        let environment = Environment {
            data: data.clone(),
            default_run: self.run.clone(),
            auto_backend: chosen.backend,
            cores,
            init_model,
        };
        let plan = RunPlan::resolve(&self.config, &environment)?;
        if let Some((saved, path)) = &self.saved {
            plan.check_resume(saved, path)?;
        }
        Ok(plan)
    }
}

/// The data before the run directory is taken.
enum Data {
    /// To be made.
    Demo(DataSummary),
    Given(Streams),
}

impl Data {
    fn summary(&self) -> &DataSummary {
        match self {
            Self::Demo(summary) => summary,
            Self::Given(streams) => &streams.summary,
        }
    }

    fn into_streams(self, run: &RunPaths, plan: &RunPlan) -> Result<Streams, CliError> {
        match self {
            Self::Given(streams) => Ok(streams),
            Self::Demo(summary) => {
                let dir = run.root().join(DEMO_DATA);
                demo::write(&dir, &DemoOptions::default())?;
                let mut streams = Streams::open(&dir, plan.eval_every > 0)?;
                streams.summary.name = summary.name;
                Ok(streams)
            }
        }
    }
}

/// The data, opened and checked.
pub(super) struct Streams {
    pub(super) summary: DataSummary,
    training: Arc<TokenStream>,
    validation: Option<Arc<TokenStream>>,
}

impl Streams {
    pub(super) fn open(dir: &Path, evaluates: bool) -> Result<Self, CliError> {
        let training = Arc::new(TokenStream::open(dir, Split::Train)?);
        let validation = if evaluates {
            Some(Arc::new(TokenStream::open(dir, Split::Val)?))
        } else {
            None
        };
        let floor = Manifest::read(dir)?.and_then(|manifest| manifest.val.entropy_nats_per_token);
        let name = dir
            .file_name()
            .map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned());
        let summary = DataSummary {
            name,
            train_tokens: training.len(),
            val_tokens: validation.as_ref().map_or(0, |stream| stream.len()),
            floor,
        };
        Ok(Self {
            summary,
            training,
            validation,
        })
    }
}

/// The newest whole checkpoint; what is damaged is said and passed over.
fn newest_checkpoint(run: &RunPaths) -> Result<Checkpoint, CliError> {
    let (checkpoint, damaged) = Checkpoints::open(run.checkpoints())?.newest()?;
    for error in damaged {
        warn(&format!("{error}; going on from the one before"));
    }
    Ok(checkpoint)
}

/// A training session on whichever backend is chosen.
pub(super) struct TrainJob {
    pub(super) plan: RunPlan,
    pub(super) paths: RunPaths,
    pub(super) data: Streams,
    pub(super) resume: Option<Checkpoint>,
    pub(super) display: Display,
    pub(super) interrupter: Interrupter,
    /// Whether checkpoints are kept.
    pub(super) save: bool,
}

impl Job for TrainJob {
    type Output = Ending;

    fn run<B>(self, device: B::Device, chosen: &Chosen) -> Result<Ending, CliError>
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        check_precision::<B>(self.plan.precision, &device, chosen)?;
        let session = Session::<B> {
            peak_flops: chosen.peak_flops(self.plan.precision),
            plan: self.plan,
            paths: self.paths,
            device,
            probe: chosen.probe(),
            training: self.data.training,
            validation: self.data.validation,
            floor: self.data.summary.floor,
            resume: self.resume,
            display: self.display,
            interrupter: self.interrupter,
            save: self.save,
        };
        Ok(session.train()?)
    }
}

/// Refuses a precision that the device does not compute in.
pub(crate) fn check_precision<B: Backend>(
    precision: Precision,
    device: &B::Device,
    chosen: &Chosen,
) -> Result<(), CliError> {
    let computes = match precision {
        Precision::F32 => true,
        Precision::Tf32 => chosen.backend == BackendChoice::Cuda,
        Precision::Bf16 => chosen.multiplies_bf16() && B::supports_dtype(device, DType::BF16),
    };
    if computes {
        return Ok(());
    }
    Err(TrainError::InvalidValue {
        key: "precision",
        value: precision.to_string(),
        expected: format!("f32 on {} ({})", chosen.backend, chosen.device.name),
        mend: format!("this device does not compute in {precision}; drop the flag or choose another `--backend`"),
    }
    .into())
}
