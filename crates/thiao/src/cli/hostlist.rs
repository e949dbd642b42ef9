//! `thiao hostlist`: lists of nodes for people and scripts.

use super::args::Hostlist;
use thiao_cli::exit::Malformed;
use thiao_cli::output::Printer;
use thiao_core::hostlist::{self, HostlistError};
use thiao_core::ids::NodeName;

pub(super) fn run(printer: Printer, command: &Hostlist) -> anyhow::Result<()> {
    let text = match command {
        Hostlist::Expand { lists } => {
            let mut text = String::new();
            for name in expand_all(lists)? {
                text.push_str(name.as_str());
                text.push('\n');
            }
            text
        }
        Hostlist::Fold { lists } => hostlist::fold(&expand_all(lists)?) + "\n",
        Hostlist::Count { lists } => {
            let mut sum: u64 = 0;
            for list in lists {
                sum = sum.saturating_add(hostlist::count(list).map_err(|e| malformed(list, &e))?);
            }
            format!("{sum}\n")
        }
    };
    Ok(printer.print(&text)?)
}

fn expand_all(lists: &[String]) -> Result<Vec<NodeName>, Malformed> {
    let mut names = Vec::new();
    for list in lists {
        names.extend(expand(list)?);
    }
    Ok(names)
}

/// The names of a list that somebody typed.
pub(super) fn expand(list: &str) -> Result<Vec<NodeName>, Malformed> {
    hostlist::expand(list).map_err(|e| malformed(list, &e))
}

/// Refuses what is no list, before anybody else is asked.
pub(super) fn check(list: &str) -> Result<(), Malformed> {
    expand(list).map(drop)
}

fn malformed(list: &str, error: &HostlistError) -> Malformed {
    Malformed(format!("{error}\n{}", error.caret(list)))
}
