//! State machines as tables.
//!
//! A machine lists its transitions in one constant, `TRANSITIONS`. Each entry is a state, a cause,
//! and the next state. One method, `enter`, makes every change of state. It asserts that the table
//! has the transition.
//!
//! The module documentation of each machine shows its table as a diagram. A test fails if the
//! diagram differs from the table.

use std::fmt::Debug;

/// Asserts that the table has this transition. Release builds do not check this.
#[inline]
pub(crate) fn assert_transition<State, Cause>(
    table: &[(State, Cause, State)],
    transition: (State, Cause, State),
) where
    State: Debug + PartialEq,
    Cause: Debug + PartialEq,
{
    debug_assert!(
        table.contains(&transition),
        "{transition:?} is no transition of this machine"
    );
}

/// Returns the diagram of a table: one line for each transition, without the `//! ` in front.
#[cfg(test)]
pub(crate) fn diagram<State: Debug, Cause: Debug>(table: &[(State, Cause, State)]) -> String {
    let name = |value: &dyn Debug| format!("{value:?}");
    let width = |length: fn(&(String, String)) -> usize, names: &[(String, String)]| {
        names.iter().map(length).max().unwrap_or(0)
    };
    let names: Vec<(String, String)> = table
        .iter()
        .map(|(from, cause, _)| (name(from), name(cause)))
        .collect();
    let state_width = width(|(from, _)| from.len(), &names);
    let cause_width = width(|(_, cause)| cause.len(), &names);
    let line = |((from, cause), to): (&(String, String), &State)| {
        let arrow = "─".repeat(cause_width - cause.len() + 1);
        format!("  {from:<state_width$} ─ {cause} {arrow}► {to:?}\n")
    };
    let targets = table.iter().map(|(_, _, to)| to);
    names.iter().zip(targets).map(line).collect()
}

/// Asserts that `source`, the source file of a machine, contains the diagram of its table.
#[cfg(test)]
pub(crate) fn assert_diagram<State: Debug, Cause: Debug>(
    source: &str,
    table: &[(State, Cause, State)],
) {
    let diagram = diagram(table);
    let lines: String = diagram
        .lines()
        .map(|line| format!("//! {line}\n"))
        .collect();
    let wanted = format!("//! ```text\n{lines}//! ```\n");
    assert!(source.contains(&wanted), "the page has to show\n{wanted}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Lamp {
        Off,
        On,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Cause {
        Pressed,
        PowerCut,
    }

    const TRANSITIONS: [(Lamp, Cause, Lamp); 3] = [
        (Lamp::Off, Cause::Pressed, Lamp::On),
        (Lamp::On, Cause::Pressed, Lamp::Off),
        (Lamp::On, Cause::PowerCut, Lamp::Off),
    ];

    #[test]
    fn the_drawing_has_a_line_for_each_transition() {
        let expected = "  Off ─ Pressed ──► On\n  On  ─ Pressed ──► Off\n  On  ─ PowerCut ─► Off\n";
        assert_eq!(diagram(&TRANSITIONS), expected);
        assert_transition(&TRANSITIONS, TRANSITIONS[0]);
    }

    #[test]
    #[should_panic(expected = "no transition")]
    fn a_transition_missing_from_the_table_panics() {
        assert_transition(&TRANSITIONS, (Lamp::Off, Cause::PowerCut, Lamp::Off));
    }
}
