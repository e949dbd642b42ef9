use super::*;
use crate::record::{Segment, Window};
use crate::workload::{TraceJob, Workload};
use thiao_share::Host;

/// How many elements it has, by name; it must be XML.
fn elements(svg: &str, name: &str) -> usize {
    let mut reader = quick_xml::Reader::from_str(svg);
    reader.config_mut().check_end_names = true;
    let mut count = 0;
    let mut open = 0;
    loop {
        use quick_xml::events::Event;
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Start(start) => {
                open += 1;
                count += usize::from(start.name().as_ref() == name);
                start.attributes().for_each(|attribute| drop(attribute.unwrap()));
            }
            Event::Empty(start) => {
                count += usize::from(start.name().as_ref() == name);
                start.attributes().for_each(|attribute| drop(attribute.unwrap()));
            }
            Event::End(_) => open -= 1,
            _ => {}
        }
    }
    assert_eq!(open, 0);
    count
}

fn workload(hosts: u32, jobs: u32) -> Workload {
    let job = |id: u32| TraceJob {
        id: u64::from(id),
        submit: u64::from(id),
        run: 200 * u64::from(id + 1),
        tasks: 1,
        cpu: 2,
        memory: 1,
        limit: 9,
        user: 0,
        partition: 0,
        wait: None,
        efficiency: 1000,
    };
    Workload {
        name: "a <log> & \"more\"".into(),
        hosts,
        host: Host { cpu: 2, memory: 4 },
        jobs: (0..jobs).map(job).collect(),
    }
}

#[test]
fn stretches_are_a_line_for_each_policy_and_not_a_point_for_each_job() {
    let many: Vec<f64> = (0..100_000).map(|at| 1.0 + f64::from(at) / 10.0).collect();
    let lines = [
        Line {
            name: "easy",
            of: many,
        },
        Line {
            name: "shared",
            of: vec![1.0; 9],
        },
        Line {
            name: "none",
            of: Vec::new(),
        },
    ];
    let svg = stretch("a <log> & more", &lines);
    // Each has one in the legend, too.
    assert_eq!(elements(&svg, "polyline"), 5);
    assert!(svg.len() < 30_000, "{}", svg.len());
    for words in [
        "bounded stretch",
        "% of the jobs",
        "a &lt;log&gt; &amp; more",
        ">shared<",
        ">10,000<",
    ] {
        assert!(svg.contains(words), "{words}");
    }
}

#[test]
fn usage_is_a_strip_for_each_policy() {
    let full = Recording {
        bin: 3_600_000,
        used: vec![1.0; 1000],
        segments: Vec::new(),
    };
    let half = Recording {
        bin: 3_600_000,
        used: vec![0.0, 1.0, 0.0, 1.0],
        segments: Vec::new(),
    };
    let svg = usage(
        "log",
        &[
            Line {
                name: "easy",
                of: &full,
            },
            Line {
                name: "shared",
                of: &half,
            },
        ],
    );
    assert_eq!(elements(&svg, "polygon"), 2);
    for words in [
        "days since it begins",
        ">easy: share of all CPU",
        ">shared: share of all CPU",
        ">50 %<",
    ] {
        assert!(svg.contains(words), "{words}");
    }
    // The first is drawn four bins to a step, from its ground at the left to that at the right.
    assert!(svg.contains(r#"points="70,166 70,76 72.7,76 72.7,76 "#), "{svg}");
    assert!(svg.contains(r#" 740,76 740,166""#), "{svg}");
    assert_eq!(elements(&usage("log", &[]), "polygon"), 0);
}

#[test]
fn few_jobs_are_drawn_one_by_one() {
    let workload = workload(2, 3);
    let at = |job, host, alloc, from, to| Segment {
        job,
        host,
        tasks: 1,
        alloc,
        from,
        to,
    };
    let segments = [
        at(0, 0, 2, 0, 100_000),
        at(1, 0, 0, 50_000, 100_000),
        at(1, 0, 1, 100_000, 400_000),
        at(2, 1, 2, 20_000, 900_000),
    ];
    let window = Window { from: 0, to: 600_000 };
    let svg = gantt(&workload, "shared", window, &segments, false);
    assert_eq!(elements(&svg, "rect"), 4 + 4 + 1 + 2, "{svg}");
    for words in [
        "job 1, paused",
        "job 1, 50 % of its CPU",
        "minutes since",
        "Who ran where under shared",
    ] {
        assert!(svg.contains(words), "{words}");
    }
}

#[test]
fn many_jobs_are_summed_up() {
    let workload = workload(1000, 5000);
    let window = Window {
        from: 0,
        to: 86_400_000,
    };
    let segments: Vec<_> = (0..5000)
        .map(|job| Segment {
            job,
            host: job % 1000,
            tasks: 1,
            alloc: job % 3,
            from: u64::from(job) * 10_000,
            to: u64::from(job) * 10_000 + 9_000_000,
        })
        .collect();
    let svg = gantt(&workload, "shared", window, &segments, false);
    assert!(elements(&svg, "rect") > 100);
    assert!(svg.len() < 2_000_000, "{}", svg.len());
    assert!(svg.contains(">0-16<") && !svg.contains("job 7"));
    assert_eq!(svg, gantt(&workload, "shared", window, &segments, false));
    let pooled: Vec<_> = segments
        .iter()
        .map(|segment| Segment { host: 0, ..*segment })
        .collect();
    let svg = gantt(&workload, "easy", window, &pooled, true);
    assert!(elements(&svg, "rect") > 100 && svg.contains("knows no hosts"));
}
