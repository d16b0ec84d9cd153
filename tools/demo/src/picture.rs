//! Draws the herd with text characters.

use crate::plan::{Plan, Who};

/// The herd and its links. Stopped servers are crossed out, and their links are dotted.
pub(crate) fn herd(plan: &Plan, is_up: impl Fn(Who) -> bool) -> String {
    let label = |who: Who| {
        let port = plan.doors(who).clients.port();
        if is_up(who) {
            format!("{} :{port:<5}", who.name())
        } else {
            format!("{} (down)", who.name())
        }
    };
    let link = |drawn: &str, a: Who, b: Who| {
        if is_up(a) && is_up(b) {
            drawn.to_owned()
        } else {
            "·".repeat(drawn.chars().count())
        }
    };
    use Who::{Bernard, Campbell, Jaquez, Juzang, Riley};
    let [riley, jaquez, juzang, campbell, bernard] = Who::ALL.map(label);
    let lines = [
        format!("                 {riley}"),
        format!(
            "                {}            {}",
            link("/", Riley, Jaquez),
            link("\\", Riley, Juzang)
        ),
        format!("    {jaquez}            {juzang}"),
        format!(
            "                {}            {}      {}",
            link("\\", Bernard, Jaquez),
            link("/", Bernard, Juzang),
            link("\\", Juzang, Campbell)
        ),
        format!(
            "                 {bernard} {} {campbell}",
            link("---", Bernard, Campbell)
        ),
    ];
    lines.map(|line| line.trim_end().to_owned()).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_all_servers_up() {
        let expected = r"
                 Riley :10000
                /            \
    Jaquez :10001            Juzang :10002
                \            /      \
                 Bernard :10004 --- Campbell :10003";
        assert_eq!(format!("\n{}", herd(&Plan::usual(), |_| true)), expected);
    }

    #[test]
    fn the_picture_shows_a_server_down() {
        let expected = r"
                 Riley :10000
                ·            \
    Jaquez (down)            Juzang :10002
                ·            /      \
                 Bernard :10004 --- Campbell :10003";
        let drawn = herd(&Plan::usual(), |who| who != Who::Jaquez);
        assert_eq!(format!("\n{drawn}"), expected);
    }
}
