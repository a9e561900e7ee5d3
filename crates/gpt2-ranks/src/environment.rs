//! Who a process is among the ranks: what launchers say of it by environment variables.

use crate::error::RanksError;
use crate::node_list::first_host;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// What has started the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// The `gpt2` command itself, on one host.
    Gpt2,
    /// PyTorch's `torchrun`, or whatever sets its variables.
    Torchrun,
    /// Slurm's `srun`.
    Slurm,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpirun` of MPICH, Hydra or Intel MPI.
    Mpich,
}

impl Launcher {
    /// Its command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Torchrun => "torchrun",
            Self::Slurm => "srun",
            Self::OpenMpi => "Open MPI's mpirun",
            Self::Mpich => "MPICH's mpirun",
        }
    }
}

/// A process among those that train one model together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankInfo {
    /// What has started it.
    pub launcher: Launcher,
    /// Its number among all, from 0.
    pub rank: usize,
    /// How many there are.
    pub world_size: usize,
    /// Its number among those of its host, from 0.
    pub local_rank: usize,
    /// How many there are on its host.
    pub local_world_size: usize,
    /// The host of rank 0.
    pub host: String,
    /// The port on which rank 0 listens until all are there, or the first of those that it tries.
    pub port: u16,
    /// How many ports from the first on rank 0 may take: more than one where the launcher may have taken the first.
    pub ports: u16,
    /// What the ranks of this run know and no other: a stranger without it is refused.
    pub token: String,
}

/// By which the `gpt2` command tells its copies that it is the launcher, and what the run's token is.
const OWN_TOKEN: &str = "GPT2_RANKS_TOKEN";

/// Ports that are tried where the launcher may have taken the first.
const SEVERAL_PORTS: u16 = 17;

/// Of runs under Slurm or MPI that name none.
const DEFAULT_PORT: u16 = 29_400;

/// Names and values of the variables that make a process rank `info.rank` under [`Launcher::Gpt2`].
pub fn variables_of(info: &RankInfo) -> [(&'static str, String); 7] {
    [
        ("RANK", info.rank.to_string()),
        ("WORLD_SIZE", info.world_size.to_string()),
        ("LOCAL_RANK", info.local_rank.to_string()),
        ("LOCAL_WORLD_SIZE", info.local_world_size.to_string()),
        ("MASTER_ADDR", info.host.clone()),
        ("MASTER_PORT", info.port.to_string()),
        (OWN_TOKEN, info.token.clone()),
    ]
}

/// A port of this host that was free a moment ago.
///
/// # Errors
/// If the system gives none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A token that no one else has.
fn random_token() -> String {
    // Its keys are the system's random numbers.
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

/// The variables of a launcher, by what they say.
struct Names {
    launcher: Launcher,
    rank: &'static str,
    world_size: &'static str,
    local_rank: &'static str,
    local_world_size: &'static [&'static str],
    /// What tells one run from another.
    job: &'static [&'static str],
}

const TORCHRUN: Names = Names {
    launcher: Launcher::Torchrun,
    rank: "RANK",
    world_size: "WORLD_SIZE",
    local_rank: "LOCAL_RANK",
    local_world_size: &["LOCAL_WORLD_SIZE"],
    job: &["TORCHELASTIC_RUN_ID"],
};

const SLURM: Names = Names {
    launcher: Launcher::Slurm,
    rank: "SLURM_PROCID",
    world_size: "SLURM_STEP_NUM_TASKS",
    local_rank: "SLURM_LOCALID",
    local_world_size: &["SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"],
    job: &["SLURM_JOB_ID", "SLURM_STEP_ID"],
};

const OPEN_MPI: Names = Names {
    launcher: Launcher::OpenMpi,
    rank: "OMPI_COMM_WORLD_RANK",
    world_size: "OMPI_COMM_WORLD_SIZE",
    local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    local_world_size: &["OMPI_COMM_WORLD_LOCAL_SIZE"],
    job: &["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"],
};

const MPICH: Names = Names {
    launcher: Launcher::Mpich,
    rank: "PMI_RANK",
    world_size: "PMI_SIZE",
    local_rank: "MPI_LOCALRANKID",
    local_world_size: &["MPI_LOCALNRANKS"],
    job: &["PMI_JOBID", "HYDI_CONTROL_FD"],
};

impl RankInfo {
    /// Those of `world_size` ranks that this program starts on this host, in their order.
    ///
    /// # Errors
    /// If no port of this host is free.
    pub fn of_this_host(world_size: usize) -> io::Result<Vec<Self>> {
        let (port, token) = (free_port()?, random_token());
        let info = |rank| Self {
            launcher: Launcher::Gpt2,
            rank,
            world_size,
            local_rank: rank,
            local_world_size: world_size,
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
            ports: SEVERAL_PORTS,
            token: token.clone(),
        };
        Ok((0..world_size).map(info).collect())
    }

    /// What the environment says; `None` for a process that no launcher has started as one of several.
    ///
    /// `variable` gives the value of a variable that is set.
    ///
    /// # Errors
    /// [`RanksError`] if variables are missing or make no sense.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, RanksError> {
        let environment = Environment(&variable);
        let own_token = variable(OWN_TOKEN);
        let torchrun = [TORCHRUN.rank, TORCHRUN.world_size, TORCHRUN.local_rank];
        let names = if own_token.is_some() {
            Names {
                launcher: Launcher::Gpt2,
                ..TORCHRUN
            }
        } else if torchrun.iter().any(|name| variable(name).is_some()) {
            TORCHRUN
        } else if variable(SLURM.world_size).is_some_and(|tasks| tasks.trim() != "1") {
            // An interactive step has a rank too. It is one of several only if the step has several tasks.
            SLURM
        } else if variable(OPEN_MPI.rank).is_some() {
            OPEN_MPI
        } else if variable(MPICH.rank).is_some() {
            MPICH
        } else {
            return Ok(None);
        };
        environment.read(&names, own_token)
    }
}

struct Environment<F>(F);

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn read(&self, names: &Names, own_token: Option<String>) -> Result<Option<RankInfo>, RanksError> {
        let launcher = names.launcher;
        let set = [names.rank, names.world_size, names.local_rank]
            .into_iter()
            .find(|name| self.0(name).is_some())
            .unwrap_or(names.rank);
        let world_size = self.needed(names, set, names.world_size)?;
        let rank = self.needed(names, set, names.rank)?;
        self.judge(launcher, names.world_size, world_size >= 1, "at least 1")?;
        self.judge(
            launcher,
            names.rank,
            rank < world_size,
            &format!("below {world_size}, the number of ranks"),
        )?;
        if world_size == 1 {
            return Ok(None);
        }
        let local_rank = self.needed(names, set, names.local_rank)?;
        let local_world_size = self.local_world_size(names, local_rank, world_size)?;
        let (host, port, ports) = self.rendezvous(names, local_world_size == world_size)?;
        Ok(Some(RankInfo {
            launcher,
            rank,
            world_size,
            local_rank,
            local_world_size,
            host,
            port,
            ports,
            token: own_token.unwrap_or_else(|| self.token(names)),
        }))
    }

    fn needed(&self, names: &Names, set: &'static str, name: &'static str) -> Result<usize, RanksError> {
        self.number(names.launcher, name)?.ok_or(RanksError::PartlySet {
            launcher: names.launcher.name(),
            set,
            missing: name,
        })
    }

    fn number(&self, launcher: Launcher, name: &'static str) -> Result<Option<usize>, RanksError> {
        let Some(value) = self.0(name) else { return Ok(None) };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(RanksError::BadVariable {
                launcher: launcher.name(),
                variable: name,
                value,
                expected: "a whole number".into(),
            }),
        }
    }

    fn judge(&self, launcher: Launcher, name: &'static str, holds: bool, expected: &str) -> Result<(), RanksError> {
        if holds {
            return Ok(());
        }
        Err(RanksError::BadVariable {
            launcher: launcher.name(),
            variable: name,
            value: self.0(name).unwrap_or_default(),
            expected: expected.to_owned(),
        })
    }

    /// Slurm gives it for each node, as `4(x2),2`: the ranks of a host are then as many as its largest, or at least as many as
    /// this rank's number says.
    fn local_world_size(&self, names: &Names, local_rank: usize, world_size: usize) -> Result<usize, RanksError> {
        for &name in names.local_world_size {
            let Some(value) = self.0(name) else { continue };
            let of_node = |text: &str| {
                text.split('(')
                    .next()
                    .and_then(|count| count.trim().parse::<usize>().ok())
            };
            let counts: Option<Vec<usize>> = value.split(',').map(of_node).collect();
            let largest = counts.and_then(|counts| counts.into_iter().max());
            let size = largest.filter(|size| *size > local_rank && *size <= world_size);
            return size.ok_or_else(|| RanksError::BadVariable {
                launcher: names.launcher.name(),
                variable: name,
                value,
                expected: format!("above the local rank ({local_rank}) and at most the number of ranks ({world_size})"),
            });
        }
        Err(RanksError::PartlySet {
            launcher: names.launcher.name(),
            set: names.rank,
            missing: names.local_world_size[0],
        })
    }

    /// Host, first port, and how many ports.
    fn rendezvous(&self, names: &Names, one_host: bool) -> Result<(String, u16, u16), RanksError> {
        let launcher = names.launcher;
        let port = match self.number(launcher, "MASTER_PORT")? {
            None => None,
            Some(port) => {
                let whole = u16::try_from(port).ok().filter(|port| *port > 0);
                self.judge(launcher, "MASTER_PORT", whole.is_some(), "a port, 1 to 65535")?;
                whole
            }
        };
        let host = self.0("MASTER_ADDR").filter(|host| !host.trim().is_empty());
        let host = match (host, launcher) {
            (Some(host), _) => Some(host),
            (None, Launcher::Slurm) => ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"]
                .into_iter()
                .find_map(|name| first_host(&self.0(name)?)),
            (None, _) => None,
        };
        let own_host = || "127.0.0.1".to_owned();
        let host = host
            .or_else(|| one_host.then(own_host))
            .ok_or(RanksError::NoRendezvous {
                launcher: launcher.name(),
            })?;
        // torchrun's agent listens on the port itself, and speaks PyTorch's protocol alone.
        let taken = launcher == Launcher::Torchrun
            && self.0("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        match (port, launcher) {
            (Some(port), _) if taken => Ok((host, port.saturating_add(1), SEVERAL_PORTS)),
            (Some(port), Launcher::Gpt2) => Ok((host, port, SEVERAL_PORTS)),
            (Some(port), _) => Ok((host, port, 1)),
            (None, Launcher::Torchrun | Launcher::Gpt2) => Err(RanksError::PartlySet {
                launcher: launcher.name(),
                set: names.rank,
                missing: "MASTER_PORT",
            }),
            // Two jobs on one host should not meet.
            (None, _) => {
                let job = names.job.iter().find_map(|name| self.0(name)).unwrap_or_default();
                let spread = job
                    .bytes()
                    .fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                Ok((host, DEFAULT_PORT + spread % 4096 * 2, 1))
            }
        }
    }

    /// `GPT2_TOKEN`, which the user can set to a secret, or what the launcher calls this run.
    fn token(&self, names: &Names) -> String {
        self.0("GPT2_TOKEN").unwrap_or_else(|| {
            let job = names.job.iter().filter_map(|name| self.0(name));
            let job: Vec<String> = std::iter::once(names.launcher.name().to_owned()).chain(job).collect();
            job.join("/")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Option<RankInfo>, RanksError> {
        RankInfo::detect(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const OF_TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "2"),
        ("MASTER_ADDR", "node1"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn a_process_of_its_own_is_no_rank() {
        assert_eq!(detect(&[]).unwrap(), None);
        // An interactive step and an allocation of Slurm.
        assert_eq!(
            detect(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")]).unwrap(),
            None
        );
        assert_eq!(detect(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "8")]).unwrap(), None);
        assert_eq!(detect(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
    }

    #[test]
    fn torchrun_and_its_agent() {
        let info = detect(&OF_TORCHRUN).unwrap().unwrap();
        assert_eq!(
            (info.rank, info.world_size, info.local_rank, info.local_world_size),
            (3, 8, 1, 2)
        );
        assert_eq!((info.host.as_str(), info.port, info.ports), ("node1", 29_500, 1));
        let agent = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RUN_ID", "a-b")];
        let info = detect(&[&OF_TORCHRUN[..], &agent].concat()).unwrap().unwrap();
        assert_eq!((info.port, info.ports), (29_501, SEVERAL_PORTS));
        assert_eq!(info.token, "torchrun/a-b");
    }

    #[test]
    fn a_rank_of_ours_knows_what_it_was_told() {
        let ranks = RankInfo::of_this_host(3).unwrap();
        assert_eq!(ranks.iter().map(|info| info.rank).collect::<Vec<_>>(), [0, 1, 2]);
        for info in ranks {
            let variables = variables_of(&info);
            let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
            assert_eq!(detect(&variables).unwrap().unwrap(), info);
        }
    }

    #[test]
    fn slurm_gives_the_first_node_and_the_tasks_of_each() {
        let variables = [
            ("SLURM_PROCID", "5"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_TASKS_PER_NODE", "4(x2)"),
            ("SLURM_STEP_NODELIST", "gpu[07-08]"),
            ("SLURM_JOB_ID", "4711"),
            ("SLURM_STEP_ID", "0"),
        ];
        let info = detect(&variables).unwrap().unwrap();
        assert_eq!((info.rank, info.local_world_size, info.host.as_str()), (5, 4, "gpu07"));
        assert_eq!(info.token, "srun/4711/0");
        let other = variables.map(|(name, value)| (name, if value == "4711" { "4712" } else { value }));
        assert_ne!(detect(&other).unwrap().unwrap().port, info.port);
    }

    #[test]
    fn both_families_of_mpi() {
        let info = detect(&[
            ("OMPI_COMM_WORLD_RANK", "0"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ]);
        let info = info.unwrap().unwrap();
        assert_eq!((info.launcher, info.host.as_str()), (Launcher::OpenMpi, "127.0.0.1"));
        let several_hosts = detect(&[
            ("PMI_RANK", "0"),
            ("PMI_SIZE", "4"),
            ("MPI_LOCALRANKID", "0"),
            ("MPI_LOCALNRANKS", "2"),
        ]);
        let message = several_hosts.unwrap_err().to_string();
        assert!(
            message.starts_with("MPICH's mpirun does not say where the ranks meet"),
            "{message}"
        );
    }

    #[test]
    fn what_is_set_by_half_or_makes_no_sense_is_named() {
        let without = |missing: &str| {
            let rest: Vec<_> = OF_TORCHRUN.into_iter().filter(|(name, _)| *name != missing).collect();
            detect(&rest).unwrap_err().to_string()
        };
        assert_eq!(
            without("WORLD_SIZE"),
            "RANK is set by torchrun, but WORLD_SIZE is not; set it too, or unset RANK to train in one process"
        );
        assert!(without("RANK").starts_with("WORLD_SIZE is set by torchrun, but RANK is not"));
        assert!(without("LOCAL_RANK").contains("but LOCAL_RANK is not"));
        assert!(without("LOCAL_WORLD_SIZE").contains("but LOCAL_WORLD_SIZE is not"));
        assert!(without("MASTER_PORT").contains("but MASTER_PORT is not"));
        assert!(without("MASTER_ADDR").contains("MASTER_ADDR"));

        let with = |name: &str, value: &str| {
            let changed: Vec<_> = OF_TORCHRUN
                .into_iter()
                .map(|(known, before)| (known, if known == name { value } else { before }))
                .collect();
            detect(&changed).unwrap_err().to_string()
        };
        assert!(with("RANK", "8").starts_with("RANK is \"8\", expected below 8, the number of ranks"));
        assert!(with("RANK", "first").starts_with("RANK is \"first\", expected a whole number"));
        assert!(with("LOCAL_WORLD_SIZE", "9").starts_with("LOCAL_WORLD_SIZE is \"9\", expected above"));
        assert!(with("MASTER_PORT", "70000").starts_with("MASTER_PORT is \"70000\", expected a port"));
    }
}
