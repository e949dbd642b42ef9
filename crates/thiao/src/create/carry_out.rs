//! Carries a plan out, a step at a time. What was made stays when a later step fails: the next run takes it.

use super::{Action, Grant, Id, Party, Plan, Step};
use anyhow::{Context as _, anyhow, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use thiao_opennebula::acl::{Rule, Which};
use thiao_opennebula::auth::Credentials;
use thiao_opennebula::client::Element;
use thiao_opennebula::syntax::Template;
use thiao_opennebula::{Class, Client};

/// How long OpenNebula may copy an image. A guest's files are some 50 MB; a slow store is no failure.
const COPYING: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(100);
/// States of an image (`Image.h` of 7.4).
const READY: [i32; 2] = [1, 2];
const ERROR: i32 = 5;

/// Carries it out; `told` hears of each step that was done, and by what id.
///
/// # Errors
/// The step that failed, why, and that those before it stay.
pub fn carry_out(
    client: &Client,
    plan: &Plan,
    owner: Option<u32>,
    mut told: impl FnMut(&Step, Option<u32>),
) -> anyhow::Result<()> {
    let mut doer = Doer {
        client,
        owner,
        made: BTreeMap::new(),
    };
    for step in &plan.steps {
        let Some(action) = &step.action else { continue };
        let id = doer.act(action).map_err(|error| {
            anyhow!(
                "cannot {} {}: {error:#}\nWhat was done before it stays. Mend that, and type the same again: it goes \
                 on from there",
                step.verb.word(),
                step.what
            )
        })?;
        told(step, id);
    }
    Ok(())
}

struct Doer<'a> {
    client: &'a Client,
    /// Who is to have the credentials' file; none: who runs this.
    owner: Option<u32>,
    /// Ids of what was made.
    made: BTreeMap<&'static str, u32>,
}

impl Doer<'_> {
    /// Does it; the id of what it made, if that has one.
    fn act(&mut self, action: &Action) -> anyhow::Result<Option<u32>> {
        let client = self.client;
        let (key, id) = match action {
            Action::MakeGroup { name } => ("group", client.make_group(name)?),
            Action::MakeUser { group, file, .. } => {
                let credentials = Credentials::read(file)?;
                ("user", client.make_user(&credentials, self.id(group)?)?)
            }
            Action::MakeImage { key, text, datastore } => (*key, client.make_image(text, *datastore)?),
            Action::MakeTemplate { text } => ("template", client.make_template(text)?),
            Action::Give { user, grant } => {
                let rule = Rule {
                    user: Which::One(self.id(user)?),
                    grant: self.grant(grant)?,
                };
                return Ok(Some(client.make_rule(&rule)?));
            }
            Action::WriteAuth { file, user, note } => {
                let folder = file.parent().unwrap_or(file);
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("{} cannot be made", folder.display()))?;
                Credentials::random(user)?
                    .write_new(file, &note.to_string(), self.owner)
                    .with_context(|| format!("{} cannot be written", file.display()))?;
                return Ok(None);
            }
            Action::Tell { of, id, text } => {
                client.add_attributes(of.element(), self.id(id)?, text)?;
                return Ok(None);
            }
            Action::SetPassword { id, file, .. } => {
                client.set_password(*id, &Credentials::read(file)?)?;
                return Ok(None);
            }
            Action::AwaitImage { id } => {
                self.ready(self.id(id)?)?;
                return Ok(None);
            }
            Action::RewriteTemplate { id, text } => {
                // The name is no attribute of a registered one.
                let mut body = Template::parse(text)?;
                body.remove("NAME");
                client.rewrite(Element::Template, *id, &body.to_text())?;
                return Ok(None);
            }
            Action::AwaitGone { id } => {
                self.gone(*id)?;
                return Ok(None);
            }
            Action::Remove { of, id } => {
                client.remove(of.element(), *id)?;
                if *of == Party::Image {
                    self.gone(*id)?;
                }
                return Ok(None);
            }
            Action::RemoveAuth { file } => {
                std::fs::remove_file(file)
                    .with_context(|| format!("{} cannot be removed", file.display()))?;
                return Ok(None);
            }
        };
        self.made.insert(key, id);
        Ok(Some(id))
    }

    fn id(&self, id: &Id) -> anyhow::Result<u32> {
        match id {
            Id::Known(id) => Ok(*id),
            Id::Made(key) => self
                .made
                .get(key)
                .copied()
                .ok_or_else(|| anyhow!("no {key} was made")),
        }
    }

    fn grant(&self, grant: &Grant) -> anyhow::Result<thiao_opennebula::acl::Grant> {
        let id = grant.id.as_ref().map(|id| self.id(id)).transpose()?;
        let known = Grant {
            id: id.map(Id::Known),
            ..grant.clone()
        };
        known
            .known()
            .ok_or_else(|| anyhow!("{} is no right", known.text(str::to_owned)))
    }

    /// Waits until an image is gone: oned answers before it has deleted it, and its name is taken as long.
    fn gone(&self, id: u32) -> anyhow::Result<()> {
        let until = Instant::now() + COPYING;
        loop {
            match self.client.image(id) {
                Err(error) if error.class == Class::NoSuchObject => return Ok(()),
                Ok(_) if Instant::now() < until => std::thread::sleep(PAUSE),
                Ok(_) => bail!(
                    "OpenNebula has not deleted image {id} in {} s; `oneimage show {id}` may tell why",
                    COPYING.as_secs()
                ),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until an image can be used.
    fn ready(&self, id: u32) -> anyhow::Result<()> {
        let until = Instant::now() + COPYING;
        loop {
            let image = self.client.image(id)?;
            match image.state {
                Some(state) if READY.contains(&state) => return Ok(()),
                Some(ERROR) => {
                    let said = image.body.get("ERROR").unwrap_or("it does not say why");
                    bail!(
                        "OpenNebula could not copy image {id}: {said}. Its file has to be on the front-end, where the \
                         datastore may read it (SAFE_DIRS, /var/tmp as it comes)"
                    );
                }
                Some(_) | None if Instant::now() >= until => bail!(
                    "OpenNebula has not copied image {id} in {} s; `oneimage show {id}` may tell why",
                    COPYING.as_secs()
                ),
                Some(_) | None => std::thread::sleep(PAUSE),
            }
        }
    }
}

impl Party {
    fn element(self) -> Element {
        match self {
            Self::User => Element::User,
            Self::Group => Element::Group,
            Self::Template => Element::Template,
            Self::Image => Element::Image,
            Self::SecGroup => Element::SecGroup,
        }
    }
}
