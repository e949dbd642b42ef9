//! What decisions cost a job.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use thiao_cli::exit::Malformed;
use thiao_share::{Host, Ms, Overheads};

/// What is typed about costs: what is not said is as the preset has it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What decisions cost a job: time in which it makes no progress")]
pub struct Costs {
    /// Where the other costs come from that are not said
    #[arg(long, value_enum, default_value_t = Preset::Papers)]
    costs: Preset,
    /// Seconds until a new VM runs
    #[arg(long, value_name = "S", value_parser = seconds)]
    boot: Option<Ms>,
    /// Seconds to go on after a pause in place
    #[arg(long, value_name = "S", value_parser = seconds)]
    pause_cost: Option<Ms>,
    /// Seconds to go on after a save, beside the time to write and read the memory
    #[arg(long, value_name = "S", value_parser = seconds)]
    restore_cost: Option<Ms>,
    /// Seconds to go on on other hosts, beside the time to send the memory
    #[arg(long, value_name = "S", value_parser = seconds)]
    move_cost: Option<Ms>,
    /// What the storage of a host writes and reads, in MB/s, for all who save or restore there; needs --memory
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    storage: Option<u64>,
    /// What a host sends for a move, in MB/s; needs --memory
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    network: Option<u64>,
}

/// Costs that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// as in the DFRS papers: 300 s for a save or a move, nothing else
    Papers,
    /// near what VMs do: boots of 20 s, moves of 2 s and 1000 MB/s, saves and restores at 500 MB/s
    Live,
}

/// Costs with everything said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    times: Overheads,
    storage: Option<u64>,
    network: Option<u64>,
}

/// No cost is more than a week.
const MOST_SECONDS: f64 = 604_800.0;

fn seconds(text: &str) -> Result<Ms, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MOST_SECONDS).contains(&seconds) => Ok((seconds * 1000.0).round() as Ms),
        _ => Err(format!("seconds are a number from 0 to {MOST_SECONDS}")),
    }
}

impl Costs {
    /// All of them, from what was typed and the preset.
    pub fn exact(&self) -> Exact {
        let (boot, restore, moves, storage, network) = match self.costs {
            Preset::Papers => (0, 300_000, 300_000, None, None),
            Preset::Live => (20_000, 0, 2_000, Some(500), Some(1000)),
        };
        let times = Overheads {
            boot: self.boot.unwrap_or(boot),
            resume: self.pause_cost.unwrap_or(0),
            restore: self.restore_cost.unwrap_or(restore),
            moves: self.move_cost.unwrap_or(moves),
            storage: None,
            network: None,
        };
        Exact {
            times,
            storage: self.storage.or(storage),
            network: self.network.or(network),
        }
    }
}

impl Exact {
    /// For hosts that have `memory` MiB, which is what `host` says in its own unit.
    ///
    /// # Errors
    /// When rates are to count, and nobody says how much memory hosts have.
    pub fn overheads(&self, host: Host, memory: Option<u64>) -> anyhow::Result<Overheads> {
        let units = |rate: Option<u64>| match (rate, memory) {
            (None, _) => Ok(None),
            (Some(rate), Some(mib)) => {
                let part = rate as f64 * 1e6 / (mib as f64 * 1_048_576.0);
                Ok(Some((part * f64::from(host.memory)).round().max(1.0) as u64))
            }
            (Some(_), None) => {
                let why = "how long memory takes to be written and sent depends on how much there is: give the hosts' \
                           --memory, as 64G";
                Err(Malformed(why.to_owned()))
            }
        };
        Ok(Overheads {
            storage: units(self.storage)?,
            network: units(self.network)?,
            ..self.times
        })
    }

    /// As programs are told.
    pub fn json(&self) -> Value {
        let seconds = |ms: Ms| ms as f64 / 1000.0;
        json!({
            "boot_s": seconds(self.times.boot),
            "pause_s": seconds(self.times.resume),
            "restore_s": seconds(self.times.restore),
            "move_s": seconds(self.times.moves),
            "storage_mb_per_s": self.storage,
            "network_mb_per_s": self.network,
        })
    }

    /// As people are told.
    pub fn words(&self) -> String {
        let time = |what: &str, ms: Ms, rate: Option<u64>| {
            let rate = rate.map_or(String::new(), |rate| format!(" and memory at {rate} MB/s"));
            format!("{what} {} s{rate}", ms as f64 / 1000.0)
        };
        let Self {
            times,
            storage,
            network,
        } = self;
        [
            time("boot", times.boot, None),
            time("pause", times.resume, None),
            time("save", times.restore, *storage),
            time("move", times.moves, *network),
        ]
        .join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_hosts_memory() {
        let live = Costs {
            costs: Preset::Live,
            boot: None,
            pause_cost: Some(1500),
            restore_cost: None,
            move_cost: None,
            storage: None,
            network: Some(1),
        };
        let host = Host {
            cpu: 1,
            memory: 10_000,
        };
        // 500 MB of 64 GiB are 0.73 %.
        let overheads = live.exact().overheads(host, Some(65_536)).unwrap();
        assert_eq!(
            (
                overheads.boot,
                overheads.resume,
                overheads.storage,
                overheads.network
            ),
            (20_000, 1500, Some(73), Some(1))
        );
        assert!(live.exact().overheads(host, None).is_err());
        assert_eq!(
            live.exact().words(),
            "boot 20 s, pause 1.5 s, save 0 s and memory at 500 MB/s, move 2 s and memory at 1 MB/s"
        );
    }
}
