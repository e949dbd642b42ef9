//! Which weeks of a log are run.

use std::fmt;
use std::str::FromStr;

/// Which of the weeks that have jobs, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    first: usize,
    last: usize,
    step: usize,
}

impl Which {
    /// Whether this one is wanted: the number of a week, from 1.
    #[must_use]
    pub fn has(self, number: usize) -> bool {
        (self.first..=self.last).contains(&number) && (number - self.first).is_multiple_of(self.step)
    }
}

/// What was typed names no weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoWeeks;

impl fmt::Display for NoWeeks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("weeks are 'all', how many of the first, or FIRST-LAST, with /STEP for every so many")
    }
}

impl std::error::Error for NoWeeks {}

impl FromStr for Which {
    type Err = NoWeeks;

    fn from_str(text: &str) -> Result<Self, NoWeeks> {
        let number = |text: &str| {
            text.parse::<usize>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or(NoWeeks)
        };
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, number(step)?),
            None => (text, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "all" => (1, usize::MAX),
            Some((first, last)) => (number(first)?, number(last)?),
            None => (1, number(range)?),
        };
        if first > last {
            Err(NoWeeks)
        } else {
            Ok(Self { first, last, step })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is typed names weeks, or is refused; of those that are named the first is one.
        #[test]
        fn any_words_name_weeks_or_are_refused(words in "all|[0-9/-]{0,24}|\\PC{0,9}") {
            if let Ok(which) = words.parse::<Which>() {
                prop_assert!(which.has(which.first) && !which.has(which.first - 1));
            }
        }
    }

    #[test]
    fn weeks_are_counted_from_the_first() {
        let of = |which: &str| {
            let which: Which = which.parse().unwrap();
            (1..=20).filter(|number| which.has(*number)).collect::<Vec<_>>()
        };
        assert_eq!(of("all").len(), 20);
        assert_eq!(of("2"), [1, 2]);
        assert_eq!(of("19-99"), [19, 20]);
        assert_eq!(of("all/9"), [1, 10, 19]);
        assert_eq!(of("2-9/3"), [2, 5, 8]);
        assert!(of("30-40").is_empty());
    }

    #[test]
    fn what_names_no_weeks_is_refused() {
        for wrong in ["", "0", "2-1", "a", "1-", "-1", "1/0", "all/", "1-2-3", "-"] {
            assert_eq!(wrong.parse::<Which>(), Err(NoWeeks), "{wrong}");
        }
    }
}
