//! The comparison as people read it.

use super::columns::{Column, blocks, number, percent, ratio, time, wrapped};
use super::compared::{Compared, Policy};
use thiao_trace::figures::{Class, Figures, Group, LONG, Length, SHORT};
use thiao_trace::policies::EXACT;

/// So many users are shown: those with most CPU time.
const USERS: usize = 5;

/// So much of a user's name is shown.
const NAME: usize = 24;

/// A number of the table, and the same as something that can be set in relation.
type Row = (&'static str, fn(&Figures) -> f64, fn(f64) -> String, bool);

/// The rows of the table: a name, the figure, how it is shown, and whether its ratio is.
const ROWS: &[Row] = &[
    ("stretch, mean", |f| f.all.mean_stretch, number, true),
    ("  median", |f| f.all.median_stretch, number, false),
    ("  99 of 100 jobs", |f| f.all.p99_stretch, number, true),
    ("  worst job", |f| f.all.max_stretch, number, true),
    ("  worst of a week", |f| f.mean_weekly_max_stretch, number, true),
    ("turnaround, mean", |f| f.all.mean_turnaround, time, true),
    ("  99 of 100 jobs", |f| f.all.p99_turnaround, time, true),
    ("wait, mean", |f| f.all.mean_wait, time, true),
    ("  median", |f| f.all.median_wait, time, false),
    ("  99 of 100 jobs", |f| f.all.p99_wait, time, true),
    ("  until it starts", |f| f.all.mean_start, time, true),
    ("CPU in use", |f| f.utilisation, percent, false),
    ("pauses per job", |f| f.pauses_per_job, number, false),
    ("saves per job", |f| f.saves_per_job, number, false),
    ("moves per job", |f| f.moves_per_job, number, false),
    ("  and saves, most", |f| f64::from(f.most_moves), whole, false),
    ("worst week", |f| f.worst_week_ratio, number, false),
    ("jobs later", |f| f.all.later, percent, false),
    ("users later", |f| later_users(f), percent, false),
];

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// The share of the users whose jobs end later.
fn later_users(figures: &Figures) -> f64 {
    let later = figures
        .users
        .iter()
        .filter(|(_, group)| group.turnaround_ratio > 1.0);
    later.count() as f64 / figures.users.len().max(1) as f64
}

/// All policies side by side, with ratios against EASY with exact run times.
pub fn side_by_side(compared: &Compared) -> String {
    let exact = compared.policies.iter().find(|policy| policy.name == EXACT);
    let column = |policy: &Policy| {
        let cell = |(_, figure, shown, related): &Row| {
            let value = figure(&policy.figures);
            let against = exact.filter(|exact| *related && exact.name != policy.name);
            let against = against
                .map(|exact| figure(&exact.figures))
                .filter(|than| *than > 0.0);
            (
                shown(value),
                against.map_or(String::new(), |than| ratio(value / than)),
            )
        };
        let seconds = (format!("{:.1} s", policy.seconds), String::new());
        let cells = ROWS.iter().map(cell).chain([seconds]).collect();
        Column {
            head: policy.name.clone(),
            cells,
        }
    };
    let columns: Vec<Column> = compared.policies.iter().map(column).collect();
    let names: Vec<&str> = ROWS.iter().map(|row| row.0).chain(["simulated in"]).collect();
    blocks(&names, &columns)
}

/// Columns of groups: how many jobs, and what each policy did for them.
fn groups(heads: &[String], of: &dyn Fn(&Figures, usize) -> Option<Group>, compared: &Compared) -> String {
    let mut names = vec!["jobs", "CPU time", "mean stretch"];
    let each: Vec<String> = compared
        .policies
        .iter()
        .map(|policy| format!("  {}", policy.name))
        .collect();
    names.extend(each.iter().map(String::as_str));
    names.push("mean turnaround by that under easy-exact");
    names.extend(each.iter().map(String::as_str));
    let column = |(at, head): (usize, &String)| {
        let figures = |policy: &Policy| of(&policy.figures, at);
        let first = compared.policies.first().and_then(figures);
        let cell = |shown: Option<String>| (shown.unwrap_or_default(), String::new());
        let mut cells = vec![
            cell(first.as_ref().map(|group| group.jobs.to_string())),
            cell(first.as_ref().map(|group| percent(group.cpu_share))),
            cell(None),
        ];
        let shown = |figure: fn(&Group) -> f64| {
            let group = move |policy: &Policy| figures(policy).filter(|group| group.jobs > 0);
            compared
                .policies
                .iter()
                .map(move |policy| cell(group(policy).as_ref().map(|group| ratio(figure(group)))))
        };
        cells.extend(shown(|group| group.mean_stretch));
        cells.push(cell(None));
        cells.extend(shown(|group| group.turnaround_ratio));
        Column {
            head: head.clone(),
            cells,
        }
    };
    let columns: Vec<Column> = heads.iter().enumerate().map(column).collect();
    blocks(&names, &columns)
}

/// By kind of job.
pub fn classes(compared: &Compared) -> String {
    let heads: Vec<String> = Class::ALL
        .iter()
        .map(|class| class.name().replace(' ', "\n"))
        .collect();
    let of = |figures: &Figures, at: usize| figures.classes.get(at).cloned();
    let (short, long) = (SHORT / 60, LONG / 60);
    let legend = format!(
        "short: ran under {short} min; long: {long} min or longer; wide: on more than an eighth of all CPUs"
    );
    groups(&heads, &of, compared) + &wrapped(&legend)
}

/// By user, those with most CPU time; `name` says who a user is.
pub fn users(compared: &Compared, name: &dyn Fn(u32) -> String) -> String {
    let Some(first) = compared.policies.first() else {
        return String::new();
    };
    let shown = &first.figures.users[..first.figures.users.len().min(USERS)];
    let heads: Vec<String> = shown
        .iter()
        .map(|(user, _)| name(*user).chars().take(NAME).collect())
        .collect();
    let of = |figures: &Figures, at: usize| {
        let (wanted, _) = shown[at];
        figures
            .users
            .iter()
            .find(|(user, _)| *user == wanted)
            .map(|(_, group)| group.clone())
    };
    groups(&heads, &of, compared)
}

/// Some of the jobs, and how long they wait at least.
type Wait = (&'static str, fn(&Group) -> f64);

/// Waits shorter than this are none, to people; in seconds.
const NOTED: f64 = 60.0;

/// Who waits how long: of jobs that are short, as many as it takes to find some that wait.
const WAITS: [Wait; 3] = [
    ("Half", |group| group.median_wait),
    ("One in ten", |group| group.p90_wait),
    ("One in a hundred", |group| group.p99_wait),
];

/// What it comes to, in a few sentences for each policy beside what clusters do today.
pub fn summary(compared: &Compared) -> String {
    let today = &compared.policies[compared.today];
    let others = compared.policies.iter().enumerate().filter(|(at, policy)| {
        // EASY that knows run times is nothing that anybody could have.
        *at != compared.today && policy.name != EXACT
    });
    others
        .map(|(_, policy)| wrapped(&sentences(today, policy)))
        .collect()
}

fn sentences(today: &Policy, policy: &Policy) -> String {
    let [short, long] = [Length::Short, Length::Long].map(|length| &policy.today.lengths[length as usize]);
    let before = &today.today.lengths[Length::Short as usize];
    let minutes = SHORT / 60;
    let mut said = Vec::new();
    let waits = WAITS.iter().find(|(_, wait)| wait(before) >= NOTED);
    match waits {
        Some((who, wait)) => said.push(format!(
            "{who} of the jobs under {minutes} minutes waited {} or longer with {}; with {} {}.",
            time(wait(before)),
            today.name,
            policy.name,
            time(wait(short)),
        )),
        None if short.jobs > 0 && short.p99_wait < 0.5 => said.push(format!(
            "Jobs under {minutes} minutes hardly wait with {}; with {} neither.",
            today.name, policy.name,
        )),
        None if short.jobs > 0 => said.push(format!(
            "Jobs under {minutes} minutes hardly wait with {}; with {} one in a hundred waits {} or longer.",
            today.name,
            policy.name,
            time(short.p99_wait),
        )),
        None => {}
    }
    if long.jobs > 0 {
        let hours = LONG / 3600;
        said.push(format!(
            "Long jobs ({hours} h or more) end {}.",
            shifted(long.turnaround_ratio)
        ));
    }
    let all = &policy.today.all;
    said.push(format!(
        "All jobs together end {}; {} of them end later than with {}.",
        shifted(all.turnaround_ratio),
        percent(all.later),
        today.name,
    ));
    said.join(" ")
}

/// By how much a time is longer.
fn shifted(ratio: f64) -> String {
    let percent = (100.0 * (ratio - 1.0)).round();
    match percent {
        0.0 => "as soon as before".to_owned(),
        1.0.. => format!("{percent:.0} % later"),
        _ => format!("{:.0} % sooner", -percent),
    }
}
