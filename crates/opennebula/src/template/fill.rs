//! Fills a template's variables. What `{{ }}` gives does not go into the text: a mark
//! does, and the value takes the mark's place when the text was read.

use super::{Wanted, share, vm_name};
use crate::error::{Class, Error};
use crate::syntax::{MAX_TEXT, Template, Value as Attribute};
use minijinja::value::{Object, Value, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, filters};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Around the number of a value; no template has a use for them (Unicode's private characters).
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// The most steps of a template. One with a disk or card for each of some hundred needs thousands;
/// loops in loops would need any number.
const STEPS: u64 = 100_000;

/// The variables, and the last one that was asked for and is not there.
#[derive(Debug)]
struct Variables {
    known: BTreeMap<&'static str, Value>,
    unknown: Mutex<Option<String>>,
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let value = self.known.get(name).cloned();
        if value.is_none() {
            *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
        }
        value
    }
}

fn variables(wanted: &Wanted<'_>) -> BTreeMap<&'static str, Value> {
    let tag = wanted.tag;
    let mut known = BTreeMap::from([
        ("node", Value::from(tag.node.as_str())),
        ("cluster", Value::from(tag.cluster.as_str())),
        ("generation", Value::from(tag.generation.0)),
        ("vm_name", Value::from(vm_name(tag))),
        ("nodeset", Value::from(wanted.nodeset.as_str())),
        ("cpus", Value::from(wanted.spec.shape.cpus)),
        ("share", Value::from(share(wanted.spec.shape))),
        ("memory_mb", Value::from(wanted.memory_mb())),
        ("slurm_memory_mb", Value::from(wanted.spec.shape.memory_mb)),
        (
            "slurmctld_host",
            Value::from(wanted.guest.slurmctld_host.as_str()),
        ),
        (
            "slurmctld_addr",
            Value::from(wanted.guest.slurmctld_addr.to_string()),
        ),
        ("slurmctld_port", Value::from(wanted.guest.slurmctld_port)),
    ]);
    if let Some(job) = wanted.spec.job {
        known.insert("job", Value::from(job.0));
    }
    if let Some(host) = wanted.host {
        known.insert("host", Value::from(host.as_str()));
    }
    if let Some((network, id)) = wanted.network {
        known.insert("network", Value::from(network));
        known.insert("network_id", Value::from(id));
    }
    known
}

/// Fills and reads a template.
pub fn fill(text: &str, origin: &str, wanted: &Wanted<'_>) -> Result<Template, Error> {
    let bad = |what: String| Error {
        class: Class::BadTemplate,
        text: format!("template {origin}: {what}"),
    };
    if text.contains([OPEN, CLOSE]) {
        return Err(bad(
            "it has characters of Unicode's private range: remove them".to_owned()
        ));
    }
    let variables = Arc::new(Variables {
        known: variables(wanted),
        unknown: Mutex::default(),
    });
    let values: Arc<Mutex<Vec<String>>> = Arc::default();
    let room = AtomicUsize::new(MAX_TEXT);
    let mut environment = Environment::empty();
    environment.add_filter("int", filters::int);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("replace", filters::replace);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("upper", filters::upper);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(STEPS));
    let kept = values.clone();
    environment.set_formatter(move |out, _, value| {
        let text = match value.kind() {
            ValueKind::String | ValueKind::Number | ValueKind::Bool => value.to_string(),
            kind => {
                return Err(minijinja::Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a value must be a text or a number, this is a {kind}"),
                ));
            }
        };
        let left = room.load(Ordering::Relaxed).checked_sub(text.len());
        let left = left.ok_or_else(|| {
            let what = format!("its values have more than {MAX_TEXT} bytes");
            minijinja::Error::new(ErrorKind::InvalidOperation, what)
        })?;
        room.store(left, Ordering::Relaxed);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        write!(out, "{OPEN}{}{CLOSE}", kept.len())?;
        kept.push(text);
        Ok(())
    });
    let rendered = environment
        .template_from_named_str(origin, text)
        .and_then(|template| template.render(Value::from_dyn_object(variables.clone())));
    let rendered = rendered.map_err(|error| {
        let line = error
            .line()
            .map_or(String::new(), |line| format!("line {line}: "));
        let unknown = variables
            .unknown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        bad(match (error.kind(), unknown) {
            (ErrorKind::UndefinedError, Some(name)) => format!(
                "{line}there is no variable {name:?} here; there are {}",
                variables.known.keys().copied().collect::<Vec<_>>().join(", ")
            ),
            (ErrorKind::OutOfFuel, _) => {
                format!("it takes more than {STEPS} steps: are there loops in loops?")
            }
            (kind, _) => format!(
                "{line}{}",
                error
                    .detail()
                    .map_or(kind.to_string(), |detail| format!("{kind}: {detail}"))
            ),
        })
    })?;
    let mut template = Template::parse(&rendered).map_err(|error| {
        let mark = OPEN.escape_default().to_string();
        bad(if error.text.contains(&mark) {
            let text = error.text.replace(&mark, "{{");
            format!("{text}: a variable can only be in a value")
        } else {
            error.text
        })
    })?;
    let values = values.lock().unwrap_or_else(PoisonError::into_inner);
    for (_, attribute) in &mut template.0 {
        match attribute {
            Attribute::Single(text) => put(text, &values),
            Attribute::Vector(pairs) => pairs.iter_mut().for_each(|(_, text)| put(text, &values)),
        }
    }
    Ok(template)
}

/// Puts the values where their marks are.
fn put(text: &mut String, values: &[String]) {
    if !text.contains(OPEN) {
        return;
    }
    let mut filled = String::new();
    let mut rest = text.as_str();
    while let Some((before, marked)) = rest.split_once(OPEN) {
        filled.push_str(before);
        let (number, after) = marked.split_once(CLOSE).unwrap_or((marked, ""));
        if let Some(value) = number.parse().ok().and_then(|number: usize| values.get(number)) {
            filled.push_str(value);
        }
        rest = after;
    }
    filled.push_str(rest);
    *text = filled;
}
