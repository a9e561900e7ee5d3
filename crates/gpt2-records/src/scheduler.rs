//! What the environment says about the run: the batch scheduler that started it, and variables that change how fast it is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The batch scheduler's view of this process; all null outside of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `slurm`, or null.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The job's number.
    pub job_id: Option<String>,
    /// The job's nodes, in the scheduler's shorthand.
    pub nodelist: Option<String>,
    /// How many nodes.
    pub nnodes: Option<u64>,
    /// This process's number in the job.
    pub procid: Option<u64>,
    /// This process's number on its node.
    pub localid: Option<u64>,
    /// The GPUs that were asked for, in the scheduler's words.
    pub gpus: Option<String>,
    /// The queue.
    pub partition: Option<String>,
    /// The cluster; schema 2.0 has it in its `hardware` block.
    #[serde(skip)]
    pub cluster: Option<String>,
}

impl Scheduler {
    /// Reads the variables that Slurm sets for each task (sbatch(1), "output environment variables").
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name| variable(name).and_then(|text| text.parse().ok());
        let Some(job_id) = variable("SLURM_JOB_ID") else {
            return Self::default();
        };
        Self {
            kind: Some("slurm".to_owned()),
            job_id: Some(job_id),
            nodelist: variable("SLURM_JOB_NODELIST"),
            nnodes: number("SLURM_JOB_NUM_NODES"),
            procid: number("SLURM_PROCID"),
            localid: number("SLURM_LOCALID"),
            gpus: variable("SLURM_GPUS").or_else(|| variable("SLURM_GPUS_ON_NODE")),
            partition: variable("SLURM_JOB_PARTITION"),
            cluster: variable("SLURM_CLUSTER_NAME"),
        }
    }
}

/// Those of `variables` that say which devices, threads and communication a run was given.
///
/// A list of what is taken, not of what is left out: an environment may hold secrets, and the report is made to be shared.
pub fn recorded_variables(variables: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    const NAMES: [&str; 4] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MKL_NUM_THREADS"];
    const PREFIXES: [&str; 8] = [
        "CUDA_",
        "CUBECL_",
        "NCCL_",
        "WGPU_",
        "RAYON_",
        "OMP_",
        "OPENBLAS_",
        "BLIS_",
    ];
    let taken = |name: &str| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    variables.into_iter().filter(|(name, _)| taken(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_a_scheduler_all_is_null() {
        let scheduler = Scheduler::detect(|_| None);
        assert_eq!(scheduler, Scheduler::default());
        let json = serde_json::to_value(scheduler).unwrap();
        for field in [
            "type",
            "job_id",
            "nodelist",
            "nnodes",
            "procid",
            "localid",
            "gpus",
            "partition",
        ] {
            assert!(json[field].is_null() && json.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn slurm_is_recognised() {
        let scheduler = Scheduler::detect(|name| match name {
            "SLURM_JOB_ID" => Some("41".into()),
            "SLURM_JOB_NUM_NODES" => Some("2".into()),
            "SLURM_PROCID" => Some("not a number".into()),
            "SLURM_GPUS_ON_NODE" => Some("4".into()),
            _ => None,
        });
        assert_eq!(
            (scheduler.kind.as_deref(), scheduler.nnodes, scheduler.procid),
            (Some("slurm"), Some(2), None)
        );
        assert_eq!((scheduler.gpus.as_deref(), scheduler.partition), (Some("4"), None));
    }

    #[test]
    fn secrets_stay_out_of_the_report() {
        let pair = |name: &str| (name.to_owned(), "x".to_owned());
        let names = [
            "CUDA_VISIBLE_DEVICES",
            "API_TOKEN",
            "HOME",
            "SLURM_JWT",
            "RANK",
            "RANKING",
        ]
        .map(pair);
        let recorded = recorded_variables(names);
        assert_eq!(
            recorded.into_keys().collect::<Vec<_>>(),
            ["CUDA_VISIBLE_DEVICES", "RANK"]
        );
    }
}
