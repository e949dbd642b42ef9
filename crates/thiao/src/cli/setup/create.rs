//! `thiao setup --create` and `--remove`: the plan shown, asked about, and carried out; before the settings are
//! made, by the code that makes them without it too.

use super::ask::{Asker, Question};
use super::given::Here;
use crate::cli::args::Setup;
use crate::create::carry_out::carry_out;
use crate::create::observe::observe;
use crate::create::{self, Making, Plan, Seen, Wanted};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_cli::output::{Printer, Tone, clean};
use thiao_config::{Config, ProviderSettings};
use thiao_core::ids::ClusterName;
use thiao_opennebula::Client;
use thiao_opennebula::settings::{Access, TemplateSource};
use thiao_slurm::Slurm;

/// The endpoint that OpenNebula's programs take by default.
const ENDPOINT: &str = "http://localhost:2633/RPC2";
/// How wide what people read may be.
const COLUMNS: usize = 80;

/// A plan, with what it takes to carry it out.
pub(super) struct Prepared {
    plan: Plan,
    client: Client,
    /// Who the service is on this machine.
    service: String,
    /// Where, as whom, and for which cluster; for people.
    head: String,
    /// The options with what the plan makes in them: the settings are made of these.
    pub(super) how: Setup,
}

/// What is known of site and settings before anything is asked.
struct Ground {
    site: Here,
    /// The settings that are there, unless new ones were typed.
    config: Option<Config>,
    access: Access,
    auth: PathBuf,
    slurm_user: String,
}

impl Ground {
    fn of(file: Option<&Path>, how: &Setup) -> anyhow::Result<Self> {
        let typed = &how.settings;
        let place = file.unwrap_or(Path::new(thiao_config::DEFAULT_FILE));
        let config = match place.exists() && !typed.are_given_beside_the_maker() {
            true => Some(Config::load(file)?),
            false => None,
        };
        let known = match config.as_ref().map(|config| &config.provider) {
            Some(ProviderSettings::OpenNebula(settings)) => Some(settings),
            Some(ProviderSettings::Qemu(_)) => bail!(
                "{} has provider = \"qemu\": name new settings, e.g. --nodes, or another file with --config",
                place.display()
            ),
            None => None,
        };
        let slurm = Slurm::new(
            typed.slurm_conf.clone(),
            typed.slurm_bin_dir.clone(),
            Duration::from_secs(20),
        );
        let site = Here::of(&slurm);
        let auth = typed
            .auth
            .clone()
            .or_else(|| known.map(|settings| settings.access.auth.clone()))
            .map_or_else(|| Ok(place.with_file_name("one_auth")), std::path::absolute)?;
        let Some(admin) = how.place.admin_auth.clone().or_else(|| site.auth.clone()) else {
            bail!(
                "there are no administrator's credentials: name their file with --admin-auth or $ONE_AUTH, or put \
                 them into ~/.one/one_auth"
            );
        };
        let same = |a: &Path, b: &Path| {
            a == b
                || a.canonicalize()
                    .is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
        };
        if same(&admin, &auth) {
            bail!(
                "{} has the administrator's credentials, and cannot have the service's too: name another file with \
                 --auth",
                auth.display()
            );
        }
        let endpoint = typed
            .endpoint
            .clone()
            .or_else(|| known.map(|settings| settings.access.endpoint.clone()))
            .or_else(|| site.endpoint.clone());
        Ok(Self {
            access: Access {
                endpoint: endpoint.unwrap_or_else(|| ENDPOINT.to_owned()),
                auth: admin,
                ca_file: typed
                    .ca_file
                    .clone()
                    .or_else(|| known.and_then(|settings| settings.access.ca_file.clone())),
                timeout: Duration::from_secs(60),
                requests_per_second: 0,
                connections: 1,
            },
            auth,
            slurm_user: site.slurmctld.user.clone().unwrap_or_else(|| "slurm".to_owned()),
            site,
            config,
        })
    }

    fn cluster(&self, how: &Setup, asker: &mut Asker<'_>) -> anyhow::Result<ClusterName> {
        let typed = how.settings.cluster.clone();
        if let Some(known) = typed.or_else(|| self.config.as_ref().map(|config| config.cluster.clone())) {
            return Ok(known);
        }
        let answer = asker.ask(Question {
            flag: "--cluster",
            text: "The cluster's name, ClusterName of slurm.conf",
            given: None,
            default: self.site.cluster.clone(),
            sure: true,
            check: &|text| ClusterName::new(text).map(drop).map_err(|e| e.to_string()),
        })?;
        let Some(answer) = answer else {
            bail!("slurmctld does not say the cluster's name: give it with --cluster");
        };
        Ok(ClusterName::new(&answer)?)
    }

    fn wanted(&self, how: &Setup, cluster: ClusterName) -> Wanted {
        let (typed, place) = (&how.settings, &how.place);
        let mut wanted = Wanted {
            cluster,
            user: place.user.clone(),
            group: place.group.clone(),
            auth: self.auth.clone(),
            templates: typed.template.iter().cloned().collect(),
            making: match (&place.image, &place.guest) {
                (Some(image), _) => Some(Making::Image(image.clone())),
                (None, Some(folder)) if place.on_hosts => Some(Making::GuestOnHosts(folder.clone())),
                (None, Some(folder)) => Some(Making::Guest(folder.clone())),
                (None, None) => None,
            },
            networks: typed.network.iter().cloned().collect(),
            placement: typed.placement.map(Into::into).unwrap_or_default(),
            fence: true,
        };
        let known = self.config.as_ref().map(|config| &config.provider);
        if let Some(ProviderSettings::OpenNebula(settings)) = known {
            wanted.placement = settings.placement;
            wanted.fence = settings.fence.is_some();
            let made = wanted.name();
            for set in settings.nodesets.values() {
                if let TemplateSource::Registered(name) = &set.template
                    && !(wanted.making.is_some() && *name == made)
                    && !wanted.templates.contains(name)
                {
                    wanted.templates.push(name.clone());
                }
                wanted.networks.extend(set.networks.iter().cloned());
            }
            wanted.networks.dedup();
        }
        wanted
    }
}

/// Looks, asks a person for what is open, and plans. Changes nothing.
pub(super) fn prepare(file: Option<&Path>, how: &Setup, asker: &mut Asker<'_>) -> anyhow::Result<Prepared> {
    let ground = Ground::of(file, how)?;
    let mut wanted = ground.wanted(how, ground.cluster(how, asker)?);
    let client = Client::new(&ground.access)?;
    let seen = observe(&client, &ground.access, &ground.auth).context(LOOKED)?;
    ask_source(&mut wanted, &seen, asker)?;
    ask_network(&mut wanted, &seen, asker)?;
    let plan = create::plan(&wanted, &seen).map_err(|refused| refused_whole(&refused.0))?;
    let mut typed = how.clone();
    if ground.config.is_none() {
        let settings = &mut typed.settings;
        settings.opennebula = true;
        settings.cluster = Some(wanted.cluster.clone());
        settings.endpoint = Some(ground.access.endpoint.clone());
        settings.auth = Some(ground.auth.clone());
        settings.template.clone_from(&plan.template);
        settings.network.clone_from(&plan.network);
    } else {
        typed.settings.opennebula = false;
    }
    Ok(Prepared {
        head: head(&ground, &seen, &wanted.cluster),
        plan,
        client,
        service: ground.slurm_user,
        how: typed,
    })
}

const LOOKED: &str = "nothing was made: OpenNebula has to be looked at first";

fn refused_whole(why: &[String]) -> anyhow::Error {
    let mut text = String::from("nothing was changed in OpenNebula:");
    for reason in why {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {reason}");
    }
    anyhow::anyhow!(text)
}

fn head(ground: &Ground, seen: &Seen, cluster: &ClusterName) -> String {
    format!(
        "OpenNebula at {}, as {}, for cluster {cluster}:",
        ground.access.endpoint, seen.me.name
    )
}

fn ask_source(wanted: &mut Wanted, seen: &Seen, asker: &mut Asker<'_>) -> anyhow::Result<()> {
    let known = !wanted.templates.is_empty() || wanted.making.is_some();
    if known || matches!(asker, Asker::Nobody { .. }) {
        return Ok(());
    }
    let there: Vec<&str> = seen
        .templates
        .iter()
        .map(|template| template.name.as_str())
        .collect();
    asker.say(&format!(
        "OpenNebula's VM templates: {}",
        clean(&there.join(", "))
    ))?;
    let answer = asker.ask(Question {
        flag: "--template",
        text: "The one that VMs are made of (none of them: begin anew with --image or --guest)",
        given: None,
        default: None,
        sure: false,
        check: &|text| match seen
            .templates
            .iter()
            .any(|template| template.name == text || template.id.to_string() == text)
        {
            true => Ok(()),
            false => Err("there is none of that name or id".to_owned()),
        },
    })?;
    wanted.templates.extend(answer);
    Ok(())
}

fn ask_network(wanted: &mut Wanted, seen: &Seen, asker: &mut Asker<'_>) -> anyhow::Result<()> {
    let open = create::open_networks(wanted, seen);
    if open.is_empty() || matches!(asker, Asker::Nobody { .. }) {
        return Ok(());
    }
    asker.say(&format!("OpenNebula's networks: {}", clean(&open.join(", "))))?;
    let answer = asker.ask(Question {
        flag: "--network",
        text: "The one that VMs get their addresses in",
        given: None,
        default: None,
        sure: false,
        check: &|text| match open.iter().any(|name| name == text) {
            true => Ok(()),
            false => Err("there is none of that name".to_owned()),
        },
    })?;
    wanted.networks.extend(answer);
    Ok(())
}

impl Prepared {
    /// Shows the plan in place of carrying it out, if that is what was typed.
    pub(super) fn only_shown(&self, printer: Printer) -> anyhow::Result<bool> {
        let how = &self.how;
        if how.place.json {
            let value = as_json(&self.head, &self.plan, &self.service);
            printer.print(&thiao_cli::output::json(&value, true)?)?;
            return Ok(true);
        }
        if !how.dry_run {
            return Ok(false);
        }
        let mut text = format!("# {}\n", clean(&self.head));
        text.push_str(&create::script(&self.plan, &self.service));
        let _ = writeln!(text, "# Then: {}", self.then());
        printer.print(&text)?;
        Ok(true)
    }

    /// What makes the settings after these commands.
    fn then(&self) -> String {
        let settings = &self.how.settings;
        let mut text = String::from("thiao setup --opennebula");
        if let Some(auth) = &settings.auth {
            let _ = write!(text, " --auth {}", auth.display());
        }
        for (option, value) in [
            ("--endpoint", &settings.endpoint),
            ("--template", &settings.template),
            ("--network", &settings.network),
        ] {
            if let Some(value) = value {
                let _ = write!(text, " {option} {value}");
            }
        }
        text
    }

    /// Shows the plan, asks, and does it.
    pub(super) fn carry_out(&self, printer: Printer) -> anyhow::Result<()> {
        printer.print(&draw(printer, &self.head, &self.plan))?;
        if !agreed(printer, self.how.place.yes, &self.plan)? {
            bail!("nothing was made");
        }
        let (owner, note) = owner(&self.service, &self.how);
        do_all(printer, &self.client, &self.plan, owner)?;
        let _ = printer.print(&format!("{note}\n"));
        Ok(())
    }
}

/// Who gets the credentials' file: Slurm's user, as whom thiaod runs; what to do where that cannot be done here.
fn owner(service: &str, how: &Setup) -> (Option<u32>, String) {
    let me = rustix::process::geteuid().as_raw();
    let file = how
        .settings
        .auth
        .as_deref()
        .unwrap_or(Path::new("/etc/thiao/one_auth"));
    let note = |why: String| {
        format!(
            "Note: {why}: give {} to the user that thiaod runs as (chown), or thiaod refuses it.\n",
            file.display()
        )
    };
    match thiao_config::user_id(service) {
        Ok(id) if me == 0 => (Some(id), String::new()),
        Ok(id) if me == id => (None, String::new()),
        Ok(_) => (None, note(format!("only root could make it {service}'s"))),
        Err(why) => (None, note(why)),
    }
}

/// Whether it shall be done: a person says so, or `--yes` does. Nothing to do needs no word.
fn agreed(printer: Printer, yes: bool, plan: &Plan) -> anyhow::Result<bool> {
    if yes || !plan.acts() {
        return Ok(true);
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("nothing was done: nobody is here to be asked; look at the plan, then repeat with --yes");
    }
    printer.print("Do this? [y/N]: ")?;
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        // Ctrl-D: what comes next begins a line of its own.
        printer.print("\n")?;
    }
    Ok(is_yes(&line))
}

/// Whether that is a yes, with Enter; whatever else somebody types is none.
fn is_yes(line: &[u8]) -> bool {
    let Some(line) = line.strip_suffix(b"\n") else {
        return false;
    };
    let word = line.trim_ascii();
    word.eq_ignore_ascii_case(b"y") || word.eq_ignore_ascii_case(b"yes")
}

fn do_all(printer: Printer, client: &Client, plan: &Plan, owner: Option<u32>) -> anyhow::Result<()> {
    carry_out(client, plan, owner, |step, id| {
        let id = id.map(|id| format!(" ({id})")).unwrap_or_default();
        let done = printer.toned(&format!("{:<8}", "done"), Tone::Good);
        let words = format!("  {done} {} {}{id}\n", step.verb.word(), clean(&step.what));
        // A reader who left early does not end what was begun.
        let _ = printer.print(&words);
    })
}

/// The plan for people, a step a paragraph.
fn draw(printer: Printer, head: &str, plan: &Plan) -> String {
    let mut text = format!("{}\n", clean(head));
    for step in &plan.steps {
        let tone = if step.action.is_some() {
            Tone::Busy
        } else {
            Tone::Faint
        };
        let verb = printer.toned(&format!("{:<8}", step.verb.word()), tone);
        let words = clean(&format!("{}: {}", step.what, step.why));
        let mut column = 0;
        let _ = write!(text, "  {verb}");
        for word in words.split_whitespace() {
            if column > 0 && 11 + column + word.chars().count() > COLUMNS - 1 {
                text.push_str("\n          ");
                column = 0;
            }
            let _ = write!(text, " {word}");
            column += word.chars().count() + 1;
        }
        text.push('\n');
    }
    text
}

fn as_json(head: &str, plan: &Plan, service: &str) -> Value {
    let step = |step: &create::Step| {
        json!({
            "verb": step.verb.word(),
            "what": step.what,
            "why": step.why,
            "command": create::command_of(step, service),
        })
    };
    json!({
        "where": head,
        "steps": plan.steps.iter().map(step).collect::<Vec<_>>(),
        "template": plan.template,
        "network": plan.network,
    })
}

/// Takes back what `--create` made.
pub(super) fn remove(file: Option<&Path>, printer: Printer, how: &Setup) -> anyhow::Result<()> {
    let ground = Ground::of(file, how)?;
    let cluster = ground.cluster(how, &mut Asker::nobody())?;
    let running = ground.config.as_ref().is_some_and(|config| {
        thiao_api::client::Client::new(&config.state_dir)
            .controller()
            .is_some()
    });
    if running && !how.dry_run && !how.place.json {
        bail!(
            "nothing was removed: thiaod is still running, and would lose its user: systemctl disable --now thiaod"
        );
    }
    let client = Client::new(&ground.access)?;
    let seen = observe(&client, &ground.access, &ground.auth).context(LOOKED)?;
    let vms = create::vms_of(&client, &seen, &cluster).context(LOOKED)?;
    let plan = create::plan_removal(&cluster, &ground.auth, &seen, &vms)
        .map_err(|refused| refused_whole(&refused.0))?;
    let head = head(&ground, &seen, &cluster);
    if how.place.json {
        let value = as_json(&head, &plan, &ground.slurm_user);
        return Ok(printer.print(&thiao_cli::output::json(&value, true)?)?);
    }
    if how.dry_run {
        let script = create::script(&plan, &ground.slurm_user);
        return Ok(printer.print(&format!("# {}\n{script}", clean(&head)))?);
    }
    if plan.steps.is_empty() {
        return Ok(printer.print("Nothing there was made for this cluster.\n")?);
    }
    printer.print(&draw(printer, &head, &plan))?;
    if !agreed(printer, how.place.yes, &plan)? {
        bail!("nothing was removed");
    }
    do_all(printer, &client, &plan, None)?;
    Ok(printer
        .print("What setup wrote on this machine is still there: `thiao setup --undo` removes that.\n")?)
}
