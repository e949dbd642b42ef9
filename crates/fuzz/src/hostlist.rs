//! Hostlists: Slurm's and people's.

use crate::input::says_something;
use std::collections::BTreeSet;
use thiao_core::hostlist::{Limits, NameSet, count, expand_within, fold};
use thiao_core::ids::NodeName;

/// Enough for all that lists can say, and soon expanded.
const FEW: Limits = Limits {
    names: 64,
    bytes: 1 << 20,
};

/// All ways to read a list agree, and what is folded expands to the same names.
pub fn check(input: &[u8]) {
    let counted = count(input);
    let names = match expand_within(input, FEW) {
        Ok(names) => names,
        Err(error) => {
            assert!(error.at <= input.len(), "{error:?}");
            says_something(&error, input);
            let caret = error.caret(input);
            assert!(caret.ends_with('^') && caret.lines().count() == 2, "{caret:?}");
            assert_eq!(NameSet::parse(input, FEW).err(), Some(error));
            return;
        }
    };
    assert_eq!(counted, Ok(names.len() as u64));
    assert!(names.len() as u64 <= FEW.names);

    let distinct: BTreeSet<&NodeName> = names.iter().collect();
    let folded = fold(&names);
    let back = expand_within(&folded, FEW).expect("what is folded is a hostlist");
    assert_eq!(back.iter().collect::<BTreeSet<_>>(), distinct);
    assert_eq!(back.len(), distinct.len(), "each once");
    assert_eq!(fold(&back), folded);
    // Brackets may cost more than they save (`a1,a20`), by two bytes for a group of names.
    let plain: usize = distinct.iter().map(|name| name.as_str().len() + 1).sum();
    assert!(folded.len() <= plain + distinct.len(), "{folded}");

    let set = NameSet::parse(input, FEW).expect("it expands");
    for name in &distinct {
        assert!(set.contains(name), "{name}");
        // Names near it are in the set if and only if they are in the list.
        let near = name.as_str();
        let near = [
            format!("{near}0"),
            near.replacen('0', "", 1),
            near.replacen('1', "2", 1),
        ];
        for near in near.iter().filter_map(|text| NodeName::new(text).ok()) {
            assert_eq!(set.contains(&near), distinct.contains(&near), "{near}");
        }
    }
}
