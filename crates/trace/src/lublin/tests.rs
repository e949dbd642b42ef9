use super::*;

#[test]
fn the_first_jobs_of_seed_1_are_the_reference_generators() {
    let drawn = draw(&Model {
        jobs: 7,
        ..Model::default()
    });
    let drawn: Vec<_> = drawn.iter().map(|job| (job.submit, job.run, job.nodes)).collect();
    let reference = [
        (273, 8, 8),
        (1579, 5, 8),
        (1601, 7, 4),
        (1729, 2, 6),
        (1785, 61, 8),
        (1809, 13, 4),
        (1840, 12, 4),
    ];
    assert_eq!(drawn, reference);
}

#[test]
fn a_seed_always_draws_the_same_and_another_seed_something_else() {
    let model = Model {
        jobs: 200,
        load: Some(0.7),
        ..Model::default()
    };
    assert_eq!(workload(&model), workload(&model));
    let other = Model { seed: 2, ..model };
    assert_ne!(workload(&model).jobs, workload(&other).jobs);
    let more = Model { jobs: 201, ..model };
    assert_eq!(draw(&model), draw(&more)[..200]);
}

#[test]
fn needs_are_within_a_node_and_as_often_as_the_rule_says() {
    let workload = workload(&Model {
        jobs: 10_000,
        ..Model::default()
    });
    let mut small = 0;
    for job in &workload.jobs {
        assert!(job.memory >= 1000 && job.memory <= 10_000 && job.memory.is_multiple_of(1000));
        assert_eq!(job.cpu, if job.tasks == 1 { 2500 } else { 10_000 });
        assert!(job.run >= 1 && job.limit >= job.run && job.tasks <= 128);
        small += u32::from(job.memory == 1000);
    }
    assert!((5300..5700).contains(&small), "{small}");
    assert!(workload.jobs.is_sorted_by_key(|job| job.submit));
}

#[test]
fn the_load_is_the_one_that_was_asked_for() {
    for kinds in [Kinds::Typed, Kinds::Untyped] {
        for nodes in [8, 100, 1024] {
            let model = Model {
                kinds,
                nodes,
                load: Some(0.5),
                ..Model::default()
            };
            let load = workload(&model).load();
            assert!((load - 0.5).abs() < 0.001, "{kinds:?} {nodes}: {load}");
        }
    }
}
