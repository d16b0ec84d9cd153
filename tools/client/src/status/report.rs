//! The report of `herd-client status`, as text or as JSON.

use crate::standing::{Disk, LinkStanding, Standing};
use herd_mio::core::base::counted::Counted;
use serde_json::{Value, json};

use crate::status::problems::{Findings, Kind, agree};
use crate::survey::Asked;

/// A table, a line for each note and each problem, and a summary.
pub(crate) fn in_words(asked: &[Asked], findings: &Findings, ignored: &[Kind]) -> String {
    let width = asked.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let width = width.max("server".len());
    let mut text = format!(
        "{:<width$}  {:>10}  {:<16}  {:>8}  {:<8}  linked with\n",
        "server", "records", "digest", "clients", "journal"
    );
    for one in asked {
        let line = match &one.answer {
            Ok(answer) => row(&answer.standing),
            Err(reason) => format!("no answer: {reason}"),
        };
        text.push_str(&format!("{:<width$}  {line}\n", one.name));
    }
    for note in &findings.notes {
        text.push_str(&format!("{note}\n"));
    }
    for problem in &findings.problems {
        let is_ignored = ignored.contains(&problem.kind);
        let ignored = if is_ignored { " (ignored)" } else { "" };
        text.push_str(&format!(
            "{}{ignored}: {}\n",
            problem.kind.name(),
            problem.text
        ));
    }
    let count = counted(findings, ignored);
    let problems = match count {
        0 => String::new(),
        count => format!("; {}", Counted(count, "problem")),
    };
    text.push_str(&format!("{}{problems}\n", verdict(asked)));
    text
}

/// The number of problems that are not ignored.
pub(crate) fn counted(findings: &Findings, ignored: &[Kind]) -> u64 {
    let counts = findings.problems.iter();
    counts.filter(|it| !ignored.contains(&it.kind)).count() as u64
}

fn row(standing: &Standing) -> String {
    let linked: Vec<String> = standing.links.iter().map(shown).collect();
    let linked = match linked.is_empty() {
        true => "no neighbour".to_owned(),
        false => linked.join(" "),
    };
    let Standing {
        records,
        digest,
        clients,
        disk,
        ..
    } = standing;
    let journal = journal(*disk).unwrap_or("?");
    format!("{records:>10}  {digest:016x}  {clients:>8}  {journal:<8}  {linked}")
}

fn journal(disk: Option<Disk>) -> Option<&'static str> {
    Some(match disk? {
        Disk::None => "none",
        Disk::Well => "ok",
        Disk::Busy { .. } => "busy",
        Disk::Refusing { .. } => "refusing",
    })
}

/// A link in the table.
fn shown(link: &LinkStanding) -> String {
    match link.unconfirmed {
        0 => link.name.clone(),
        unconfirmed => format!("{} ({unconfirmed} unconfirmed)", link.name),
    }
}

fn verdict(asked: &[Asked]) -> String {
    let answered: Vec<&Standing> = asked
        .iter()
        .filter_map(|one| one.answer.as_ref().ok())
        .map(|answer| &answer.standing)
        .collect();
    let all = asked.len();
    match (answered.as_slice(), agree(asked)) {
        ([], _) => {
            "no server answered; check that they run, and that --config or --herd names their herd"
                .to_owned()
        }
        ([one], _) if all == 1 => {
            format!("the server holds {}", Counted(one.records, "record"))
        }
        ([one, ..], true) if answered.len() == all => {
            format!("all {all} hold the same {}", Counted(one.records, "record"))
        }
        ([_], _) => format!("1 of {all} answered"),
        (_, false) if answered.len() == all => "the servers' records differ".to_owned(),
        (some, true) => format!(
            "{} of {all} answered; these hold the same records",
            some.len()
        ),
        (some, false) => format!("{} of {all} answered; their records differ", some.len()),
    }
}

/// The whole report as one line of JSON.
pub(crate) fn in_json(asked: &[Asked], findings: &Findings, ignored: &[Kind]) -> String {
    let problem = |it: &crate::status::problems::Problem| {
        json!({
            "kind": it.kind.name(),
            "server": it.server,
            "text": it.text,
            "ignored": ignored.contains(&it.kind),
        })
    };
    let problems: Vec<Value> = findings.problems.iter().map(problem).collect();
    let value = json!({
        "healthy": counted(findings, ignored) == 0,
        "problems": problems,
        "notes": findings.notes,
        "agree": agree(asked) && asked.iter().all(|one| one.answer.is_ok()),
        "servers": asked.iter().map(server).collect::<Vec<_>>(),
    });
    format!("{value}\n")
}

fn server(one: &Asked) -> Value {
    let answer = match &one.answer {
        Ok(answer) => answer,
        Err(reason) => return json!({"name": one.name, "error": reason}),
    };
    let it = &answer.standing;
    let link = |link: &LinkStanding| {
        json!({
            "name": link.name,
            "unconfirmed": link.unconfirmed,
            "lag_ms": link.lag_ms,
            "clock_ahead_ms": link.apart_ms,
            "lacks": link.lacks,
        })
    };
    let unlinked = |(name, ms): &(String, u64)| json!({"name": name, "for_ms": ms});
    json!({
        "name": one.name,
        "boot": it.boot,
        "version": it.version,
        "records": it.records,
        "forgotten": it.forgotten,
        "draining": it.is_draining,
        "digest": format!("{:016x}", it.digest),
        "clients": it.clients,
        "max_clients": it.max_clients,
        "buffer_bytes": it.buffers.map(|it| it.bytes),
        "max_buffer_bytes": it.buffers.map(|it| it.maximum),
        "stale": it.counters.stale,
        "refused": it.refused,
        "places_day": it.places_day.map(|(asked, most)| json!({"asked": asked, "most": most})),
        "counters": it.counters.all().collect::<std::collections::BTreeMap<_, _>>(),
        "failed_handshakes": it.handshakes.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "stamped_ahead": it.counters.ahead,
        "stamped_behind": it.counters.behind,
        "journal": journal(it.disk),
        "table_full": it.is_table_full,
        "clock_ahead_ms": it.wall.map(|_| i64::try_from(answer.ahead_ms).unwrap_or(i64::MAX)),
        "links": it.links.iter().map(link).collect::<Vec<_>>(),
        "unlinked": it.unlinked.iter().map(unlinked).collect::<Vec<_>>(),
    })
}
