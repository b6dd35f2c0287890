//! The network of a serving region: private, without a way to the internet. What the payment-processor needs of AWS it reaches
//! through endpoints.

use continuity::names::Slot;

use super::Context;
use crate::graph::{Blueprint, Handle};
use crate::resources::route_table::{self, RouteTable};
use crate::resources::security_group::{self, Rule, SecurityGroup};
use crate::resources::subnet::{self, Subnet};
use crate::resources::vpc::{self, Vpc};
use crate::resources::vpc_endpoint::{self, Attachment, VpcEndpoint};
use crate::spec::Cidr;

/// PostgreSQL.
pub const DATABASE_PORT: i32 = 5432;
const HTTPS_PORT: i32 = 443;
const ZONE_LETTERS: &[u8] = b"abcdef";

/// What other areas refer to.
#[derive(Debug, Clone)]
pub struct Network {
    /// The VPC.
    pub vpc: Handle<Vpc>,
    /// A private subnet in each zone.
    pub subnets: Vec<Handle<Subnet>>,
    /// The group of the payment-processor: the only one that reaches the database.
    pub function_group: Handle<SecurityGroup>,
    /// The group of the database.
    pub database_group: Handle<SecurityGroup>,
    /// The payment-processor can work only with all of these.
    pub endpoints: Vec<Handle<VpcEndpoint>>,
}

/// VPC, subnets, routes, security groups and endpoints of one slot.
pub fn network(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot) -> Network {
    let place = context.place(slot);
    let spec = vpc::Spec {
        name: context.names.regional("vpc", slot),
        cidr: context.spec.cidr(slot).to_owned(),
        dns_support: true,
        dns_hostnames: true,
        tagged: true,
    };
    let vpc = blueprint.add(format!("vpc.{slot}"), &place, (), move |()| spec.clone());
    let subnets = subnets(blueprint, context, slot, &vpc);
    let name = context.names.regional("private", slot);
    let table: Handle<RouteTable> = blueprint.add(
        format!("route-table.{slot}"),
        &place,
        (vpc.clone(), subnets.clone()),
        move |(vpc, subnets)| route_table::Spec::new(name.clone(), vpc.vpc_id, subnet_ids(subnets)),
    );
    let [function_group, database_group, endpoint_group] = groups(blueprint, context, slot, &vpc);
    let mut endpoints: Vec<Handle<VpcEndpoint>> = ["dynamodb", "s3"]
        .into_iter()
        .map(|service| {
            let (name, service_name) = endpoint_names(context, slot, service);
            blueprint.add(
                format!("vpc-endpoint.{service}.{slot}"),
                &place,
                (vpc.clone(), table.clone()),
                move |(vpc, table)| vpc_endpoint::Spec {
                    name: name.clone(),
                    vpc_id: vpc.vpc_id,
                    service: service_name.clone(),
                    attachment: Attachment::gateway(vec![table.route_table_id]),
                    private_dns: false,
                    full_access: true,
                    tagged: true,
                },
            )
        })
        .collect();
    let (name, service_name) = endpoint_names(context, slot, "secretsmanager");
    endpoints.push(blueprint.add(
        format!("vpc-endpoint.secretsmanager.{slot}"),
        &place,
        (vpc.clone(), subnets.clone(), endpoint_group),
        move |(vpc, subnets, group)| vpc_endpoint::Spec {
            name: name.clone(),
            vpc_id: vpc.vpc_id,
            service: service_name.clone(),
            attachment: Attachment::interface(subnet_ids(subnets), vec![group.group_id]),
            private_dns: true,
            full_access: true,
            tagged: true,
        },
    ));
    Network {
        vpc,
        subnets,
        function_group,
        database_group,
        endpoints,
    }
}

fn subnet_ids(subnets: Vec<subnet::Outputs>) -> Vec<String> {
    subnets.into_iter().map(|subnet| subnet.subnet_id).collect()
}

fn endpoint_names(context: &Context<'_>, slot: Slot, service: &str) -> (String, String) {
    let name = context.names.regional(service, slot);
    (name, format!("com.amazonaws.{}.{service}", context.region(slot)))
}

fn subnets(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    vpc: &Handle<Vpc>,
) -> Vec<Handle<Subnet>> {
    let network = Cidr::parse(context.spec.cidr(slot)).expect("the configuration was validated");
    let zones = ZONE_LETTERS.iter().take(usize::from(context.spec.network.zones));
    (0u8..)
        .zip(zones)
        .map(|(index, &letter)| {
            let letter = char::from(letter);
            let name = context.names.regional(&format!("private-{letter}"), slot);
            let zone = format!("{}{letter}", context.region(slot));
            let cidr = network.slash_24(index);
            blueprint.add(
                format!("subnet.{letter}.{slot}"),
                &context.place(slot),
                vpc.clone(),
                move |vpc: vpc::Outputs| subnet::Spec {
                    name: name.clone(),
                    vpc_id: vpc.vpc_id,
                    cidr: cidr.clone(),
                    zone: zone.clone(),
                    public_addresses: false,
                    tagged: true,
                },
            )
        })
        .collect()
}

/// The groups of the function, of the database, and of the interface endpoints.
fn groups(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    vpc: &Handle<Vpc>,
) -> [Handle<SecurityGroup>; 3] {
    let place = context.place(slot);
    let name = context.names.regional("function", slot);
    let network = context.spec.cidr(slot).to_owned();
    let function = blueprint.add(
        format!("security-group.function.{slot}"),
        &place,
        vpc.clone(),
        move |vpc: vpc::Outputs| security_group::Spec {
            name: name.clone(),
            description: "payment-processor".into(),
            vpc_id: vpc.vpc_id,
            ingress: Vec::new(),
            // Gateway endpoints are reached under public addresses; without them there is no route to anything else.
            egress: vec![
                Rule::tcp(HTTPS_PORT, "0.0.0.0/0"),
                Rule::tcp(DATABASE_PORT, network.clone()),
            ],
            tagged: true,
        },
    );
    let mut only_from_function = |what: &str, description: &'static str, port| {
        let name = context.names.regional(what, slot);
        blueprint.add(
            format!("security-group.{what}.{slot}"),
            &place,
            (vpc.clone(), function.clone()),
            move |(vpc, function): (vpc::Outputs, security_group::Outputs)| security_group::Spec {
                name: name.clone(),
                description: description.into(),
                vpc_id: vpc.vpc_id,
                ingress: vec![Rule::tcp(port, function.group_id)],
                egress: Vec::new(),
                tagged: true,
            },
        )
    };
    let database = only_from_function(
        "database",
        "Aurora, from the payment-processor only",
        DATABASE_PORT,
    );
    let endpoint = only_from_function(
        "endpoint",
        "interface endpoints, from the payment-processor only",
        HTTPS_PORT,
    );
    [function, database, endpoint]
}
