//! The setting `devices`: a number of ranks, or the devices that they are on.

use super::number_or_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The devices of this host that train together, one rank on each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// So many: the first ones, or on a CPU so many processes.
    Count(usize),
    /// These, by their numbers.
    List(Vec<usize>),
}

/// What the setting can be, for messages.
const EXPECTED: &str = "a number of devices, such as 4, or devices by number with a comma, such as 0,2";

impl Devices {
    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        match self {
            Self::Count(count) => *count,
            Self::List(devices) => devices.len(),
        }
    }

    /// The number of the device of a rank of this host.
    pub fn index(&self, local_rank: usize) -> usize {
        match self {
            Self::Count(_) => local_rank,
            Self::List(devices) => devices.get(local_rank).copied().unwrap_or(local_rank),
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            // With a comma even if it is one.
            Self::List(devices) if devices.len() == 1 => write!(f, "{},", devices[0]),
            Self::List(devices) => {
                let numbers: Vec<String> = devices.iter().map(usize::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("expected {EXPECTED}"));
        if !text.contains(',') {
            return match number(text)? {
                0 => Err("expected at least 1 device".to_owned()),
                count => Ok(Self::Count(count)),
            };
        }
        let devices: Vec<usize> = text
            .trim_end_matches(',')
            .split(',')
            .map(number)
            .collect::<Result<_, _>>()?;
        if devices.iter().collect::<BTreeSet<_>>().len() < devices.len() {
            return Err("expected each device once".to_owned());
        }
        Ok(Self::List(devices))
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count as u64),
            Self::List(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text::deserialize(deserializer, EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_makes_a_list() {
        assert_eq!("4".parse(), Ok(Devices::Count(4)));
        assert_eq!("0,2".parse(), Ok(Devices::List(vec![0, 2])));
        assert_eq!("3,".parse(), Ok(Devices::List(vec![3])));
        for devices in ["4", "0,2", "3,"] {
            assert_eq!(devices.parse::<Devices>().unwrap().to_string(), devices);
        }
        for bad in ["", "0", "two", "0,0", "0,,1", "-1"] {
            assert!(bad.parse::<Devices>().is_err(), "{bad}");
        }
        let [four, two] = ["4", "0,2"].map(|text| text.parse::<Devices>().unwrap());
        assert_eq!(
            ([four.ranks(), two.ranks()], [four.index(1), two.index(1)]),
            ([4, 2], [1, 2])
        );
    }

    #[test]
    fn run_files_hold_a_number_or_a_text() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            devices: Devices,
        }
        for text in ["devices = 4\n", "devices = \"0,2\"\n"] {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(toml::to_string(&file).unwrap(), text);
        }
        let error = toml::from_str::<File>("devices = true\n").unwrap_err();
        assert!(error.message().contains("expected a number of devices"), "{error}");
        assert!(toml::from_str::<File>("devices = 0\n").is_err());
    }
}
