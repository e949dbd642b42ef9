use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn names(expr: &str) -> Vec<String> {
    expand(expr).unwrap().iter().map(ToString::to_string).collect()
}

fn folded(expr: &str) -> String {
    fold(&expand(expr).unwrap())
}

#[test]
fn expands_what_slurm_writes() {
    for (expr, expected) in [
        ("fg0", "fg0"),
        ("fg0,fg[3-5]", "fg0 fg3 fg4 fg5"),
        ("fg[0-1,7],vm[009-010]", "fg0 fg1 fg7 vm009 vm010"),
        ("a[1-2]b[3-4]", "a1b3 a1b4 a2b3 a2b4"),
        ("x[0-1][00-01]", "x000 x001 x100 x101"),
        ("r[1-2]-c[08-10]", "r1-c08 r1-c09 r1-c10 r2-c08 r2-c09 r2-c10"),
        ("a[1,1,2]", "a1 a1 a2"),
        ("a[98-101]", "a98 a99 a100 a101"),
        ("[1-2],7", "1 2 7"),
        ("a[08-010]", "a08 a09 a10"),
        // Three brackets: Slurm's own order, taken from `scontrol show hostnames`.
        (
            "a[1-2]b[3-4]c[5-6]",
            "a1b3c5 a1b3c6 a2b3c5 a2b3c6 a1b4c5 a1b4c6 a2b4c5 a2b4c6",
        ),
    ] {
        assert_eq!(names(expr).join(" "), expected, "{expr}");
        assert_eq!(count(expr).unwrap(), expected.split(' ').count() as u64, "{expr}");
    }
}

#[test]
fn folds_as_slurm_does() {
    for (expr, expected) in [
        ("a3,a1,a2", "a[1-3]"),
        ("a1,a1,a1", "a1"),
        ("a[1,01,001]", "a[1,01,001]"),
        ("a9,a010,a08,a11,a1", "a[1,9,08,11,010]"),
        ("a9,a10,a08", "a[9,08,10]"),
        ("a9,a10,a08,a09", "a[9,08-10]"),
        ("a99,a100,a098", "a[99,098,100]"),
        ("a[08-100]", "a[08-100]"),
        ("b1,B1,a,A,a0", "A,B1,a,a0,b1"),
        ("a1b[1-2],a2b[1-2],a10b1", "a1b[1-2],a2b[1-2],a10b1"),
        ("1,2,3,5", "[1-3,5]"),
        ("a12345678901234567890,a1", "a1,a12345678901234567890"),
    ] {
        assert_eq!(folded(expr), expected, "{expr}");
    }
    assert_eq!(fold([]), "");
}

#[test]
fn says_where_and_what() {
    for (expr, at, problem) in [
        ("", 0, Problem::NoName),
        (",a", 0, Problem::NoName),
        ("a,,b", 2, Problem::NoName),
        ("a,", 2, Problem::NoName),
        ("a,-b", 2, Problem::BadStart),
        ("a b", 1, Problem::BadByte(b' ')),
        ("a\0", 1, Problem::BadByte(0)),
        ("fg[1-3", 2, Problem::Unclosed),
        ("fg[", 2, Problem::Unclosed),
        ("fg[1-", 2, Problem::Unclosed),
        ("fg[1,", 2, Problem::Unclosed),
        ("fg]", 2, Problem::Unopened),
        ("a[1-2]]", 6, Problem::Unopened),
        ("a[]", 2, Problem::NoNumber),
        ("a[1,]", 4, Problem::NoNumber),
        ("a[-1]", 2, Problem::NoNumber),
        ("a[1--2]", 4, Problem::NoNumber),
        ("a[[1]]", 2, Problem::NoNumber),
        ("a[1-]", 4, Problem::NoNumber),
        ("a[1:2]", 3, Problem::AfterNumber),
        ("a[1-5:2]", 5, Problem::AfterRange),
        ("a[1-5-7]", 5, Problem::AfterRange),
        ("a[9-10,3-1]", 9, Problem::Reversed),
        ("a[1-1234567890123456789]", 4, Problem::BigNumber),
        ("b,a[1-2]c", 8, Problem::TextAfterBracket),
        ("a[1-2]c[3]d,e", 10, Problem::TextAfterBracket),
        ("a[1-65536],b", 11, Problem::TooMany(65_536)),
        ("a[0-99999999999][0-99999999999]", 0, Problem::TooMany(65_536)),
    ] {
        let error = expand(expr).unwrap_err();
        assert_eq!((error.at, error.problem), (at, problem), "{expr}");
    }
    let long = "x".repeat(64);
    assert_eq!(expand(&long).unwrap_err().problem, Problem::LongName);
    assert_eq!(expand(format!("a,{}[1-100]", &long[..61])).unwrap_err().at, 2);
    assert!(expand(format!("{}[1-100]", &long[..60])).is_ok());
    let error = expand_within(
        "aaa",
        Limits {
            bytes: 2,
            ..Limits::default()
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed hostlist at byte 2: more than 2 bytes; expected a shorter list"
    );
}

#[test]
fn counts_far_beyond_what_it_would_expand() {
    assert_eq!(count("a[0-999999999],b").unwrap(), 1_000_000_001);
    assert_eq!(
        count("a[0-999999999999][0-999999999999]").unwrap_err().problem,
        Problem::TooMany(u64::MAX)
    );
}

#[test]
fn the_caret_points_at_the_error() {
    let show = |expr: &str| expand(expr).unwrap_err().caret(expr);
    assert_eq!(show("fg[0-3],vm[5-1]"), "fg[0-3],vm[5-1]\n             ^");
    assert_eq!(show(""), "\n^");
    assert_eq!(show("a\u{e9}"), "a??\n ^");
    let long = format!("{},,{}", "a".repeat(50), "b".repeat(50));
    let shown = show(&long);
    let (text, caret) = shown.split_once('\n').unwrap();
    assert_eq!(
        (
            text.find(",,").unwrap() + 1,
            text.starts_with("..."),
            text.ends_with("...")
        ),
        (caret.len() - 1, true, true)
    );
}

/// Lists with everything in them: brackets at all places, padding, duplicates.
fn lists() -> impl Strategy<Value = String> {
    let range =
        (0..120_u64, prop::option::of(0..6_u64), 1..4_usize).prop_map(|(low, more, width)| match more {
            None => format!("{low:0width$}"),
            Some(more) => format!("{low:0width$}-{:0width$}", low + more),
        });
    let brackets = prop::collection::vec(range, 1..4).prop_map(|ranges| format!("[{}]", ranges.join(",")));
    let name = (
        "[a-bA0-2][a-b0-1._-]{0,2}",
        prop::collection::vec((brackets, "([b0-1-]{0,2})"), 0..3),
    )
        .prop_map(|(first, rest)| {
            let parts: Vec<_> = rest
                .iter()
                .map(|(ranges, text)| format!("{text}{ranges}"))
                .collect();
            first + &parts.concat()
        });
    prop::collection::vec(name, 1..6).prop_map(|names| names.join(","))
}

#[test]
fn a_set_is_not_expanded_without_bound() {
    let limits = Limits {
        names: 1 << 20,
        ..Limits::default()
    };
    let contains = |list: &str, name: &str| {
        let name = NodeName::new(name).unwrap();
        NameSet::parse(list, limits).map(|set| set.contains(&name))
    };
    // Spans cost nothing, and these lists are no spans.
    assert_eq!(contains("a[0-999999]", "a999999"), Ok(true));
    assert_eq!(contains("a1[0-9],b[0-9]c[0-9]", "b9c9"), Ok(true));
    for list in ["a1[0-999999]", "a[0-999][0-999]", "x,b1[0-65535],c1[0-1]"] {
        let error = contains(list, "a1").unwrap_err();
        assert_eq!(error.problem, Problem::TooMany(65_536), "{list}");
    }
}

proptest! {
    #[test]
    fn counting_is_expanding(list in lists()) {
        prop_assert_eq!(count(&list).unwrap(), expand(&list).unwrap().len() as u64);
    }

    #[test]
    fn folding_keeps_the_set_and_drops_the_order(list in lists(), seed in any::<prop::sample::Index>()) {
        let mut names = expand(&list).unwrap();
        let folded = fold(&names);
        let again = expand(&folded).unwrap();
        prop_assert_eq!(again.len(), again.iter().collect::<BTreeSet<_>>().len(), "each once: {}", folded);
        prop_assert_eq!(again.iter().collect::<BTreeSet<_>>(), names.iter().collect::<BTreeSet<_>>());
        prop_assert_eq!(&fold(&again), &folded);
        let at = seed.index(names.len());
        names.rotate_left(at);
        names.reverse();
        prop_assert_eq!(fold(&names), folded);
    }

    #[test]
    fn looking_up_is_searching_the_names(list in lists(), asked in lists(), fold_it in any::<bool>()) {
        let names = expand(&list).unwrap();
        let list = if fold_it { fold(&names) } else { list };
        let set = NameSet::parse(&list, Limits::default()).unwrap();
        for name in expand(&asked).unwrap().iter().chain(&names) {
            prop_assert_eq!(set.contains(name), names.contains(name), "{} in {}", name, list);
        }
    }

    #[test]
    fn the_natural_order_is_an_order(a in "[a0-2]{0,5}", b in "[a0-2]{0,5}", c in "[a0-2]{0,5}") {
        let order = |x: &str, y: &str| natural(x.as_bytes(), y.as_bytes());
        prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
        prop_assert_eq!(order(&a, &b) == Ordering::Equal, a == b);
        if order(&a, &b).is_le() && order(&b, &c).is_le() {
            prop_assert!(order(&a, &c).is_le());
        }
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        check(&bytes);
    }

    #[test]
    fn nothing_like_a_list_panics(text in "[ab0-9\\[\\],,--]{0,40}") {
        check(text.as_bytes());
    }
}

/// Whatever the text: an error lies within it and can be shown; what is accepted is within the limits.
fn check(bytes: &[u8]) {
    match expand(bytes) {
        Ok(names) => {
            assert_eq!(count(bytes).unwrap(), names.len() as u64);
            assert!(!fold(&names).is_empty());
        }
        Err(error) => {
            assert!(error.at <= bytes.len());
            assert_eq!(error.caret(bytes).lines().count(), 2);
        }
    }
}
