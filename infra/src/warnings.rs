//! What a configuration leaves out, and what follows from it: nothing that stops anybody, but that an operator should know.

use crate::spec::Spec;

/// What to tell the operator before a stack is made from this configuration. Each says what will not work and what to do.
pub fn warnings(spec: &Spec) -> Vec<String> {
    let mut warnings = Vec::new();
    let (zone, name) = (spec.zone(), spec.public_name());
    if spec.domain.is_none() {
        warnings.push(format!(
            "no `domain` is set: the zone `{zone}` is delegated by nobody, so `{name}` resolves only for who asks the zone's own \
             name servers; and API Gateway serves no certificate for it and answers 403 to it. Clients would have to call the \
             `execute-api` host of the active region, and notice themselves when that moves. Set `domain` to one that you can \
             delegate"
        ));
    }
    if spec.alerts.address.is_none() {
        warnings.push(
            "no `alerts.address` is set: alarms go off and nobody is told. Set it to an e-mail address or an `https://` URL".into(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said_with_its_consequence_and_its_remedy() {
        let warnings = warnings(&Spec::default());
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].contains("api.dr-payments-dev.test.local"),
            "{}",
            warnings[0]
        );
        assert!(warnings.iter().all(|warning| warning.contains("Set ")));
    }

    #[test]
    fn a_complete_configuration_has_no_warnings() {
        let mut spec = Spec {
            domain: Some("payments.example.com".into()),
            ..Spec::default()
        };
        spec.alerts.address = Some("ops@example.com".into());
        assert_eq!(warnings(&spec), Vec::<String>::new());
    }
}
