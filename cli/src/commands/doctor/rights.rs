//! The rights that a role needs on the bus, compared with those that the bus grants to this client.

use tallybus_bus::{BusError, Observer, Operation, Resource};
use tallybus_worker::settings::{Right, Role, Settings, SinkSettings, rights};

use super::checks::Checks;
use crate::failure::Failure;

/// Checks the rights of a role, for each sink where it has a user for each.
pub(super) fn check(
    observer: &dyn Observer,
    settings: &Settings,
    sinks: &[&SinkSettings],
    role: Role,
    checks: &mut Checks<'_>,
) -> Result<(), Failure> {
    if settings.bus.address.file().is_some() {
        return Ok(());
    }
    if !role.is_per_sink() {
        let needed = rights(role, settings, sinks);
        let how = format!("tallybus acl --role {}", role.name());
        return checks.add(&format!("rights of {}", role.name()), compare(observer, &needed, &how));
    }
    for sink in sinks {
        let needed = rights(role, settings, &[*sink]);
        let how = format!("tallybus acl --role {} --sink {}", role.name(), sink.name);
        checks.add(&format!("rights of {} {}", role.name(), sink.name), compare(observer, &needed, &how))?;
    }
    Ok(())
}

/// Which of these rights are missing, and for whom. `how`: the command that prints how to grant them.
fn compare(observer: &dyn Observer, needed: &[Right], how: &str) -> Result<String, String> {
    let principal = observer.principal();
    let who = principal.as_deref().unwrap_or("the owner of this client's certificate or token");
    let found = look(observer, needed).map_err(|error| format!("not known of {who}: {error}"))?;
    if !found.missing.is_empty() {
        let missing: Vec<String> = found.missing.iter().map(|right| shown(right)).collect();
        let option = principal.as_ref().map(|principal| format!(" --principal {principal}")).unwrap_or_default();
        return Err(format!("{who} lacks {}: `{how}{option}` prints the commands that grant it", missing.join(", ")));
    }
    let mut unseen: Vec<&str> = found.unknown.iter().map(|right| right.on.name()).collect();
    unseen.dedup();
    if unseen.is_empty() {
        return Ok(format!("{who} has every right that it needs"));
    }
    Ok(format!(
        "{who} lacks none that is known; the bus reports nothing of a topic before it exists: {}",
        unseen.join(", ")
    ))
}

fn shown(right: &Right) -> String {
    format!("{} on {} ({})", right.operation, right.on, right.content)
}

#[derive(Default)]
struct Found<'a> {
    missing: Vec<&'a Right>,
    /// The bus does not report them.
    unknown: Vec<&'a Right>,
}

fn look<'a>(observer: &dyn Observer, needed: &'a [Right]) -> Result<Found<'a>, BusError> {
    let mut resources: Vec<Resource> = needed.iter().map(|right| right.on.clone()).collect();
    resources.dedup();
    let access = observer.access(&resources)?;
    let mut found = Found::default();
    for right in needed {
        let of = resources.iter().position(|resource| *resource == right.on).and_then(|at| access.get(at));
        let allowed = match right.operation {
            // It may also be granted on the whole cluster, which only the attempt shows.
            Operation::Create => Some(observer.may_create_topic(right.on.name())?),
            operation => of.and_then(|access| access.allows(operation)),
        };
        match allowed {
            Some(true) => {}
            Some(false) => found.missing.push(right),
            None => found.unknown.push(right),
        }
    }
    Ok(found)
}
