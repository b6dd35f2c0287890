"""Policies enforced as AWS enforces them, where ministack 1.5.33 with AUTH=true asks less than AWS does.

ministack resolves the caller's role, verifies the signature and evaluates the role's policies, boundary and conditions. But it
asks once per call, about one resource that it often does not know. AWS asks about every resource that a call touches (the new
subnet and the VPC it goes into), for every action that the call implies (tags at creation, the role that is passed on, the key
that decrypts), and asks the roles of workflows, schedules and replication too. All of that is here. The questions follow the Service
Authorization Reference (https://docs.aws.amazon.com/service-authorization/latest/reference/).

Each question about a role is a line in a log: {"at_ms", "role", "action", "resource", "decision", "sid"}.
"""

import contextvars
import json
import re
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

import cbor2
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import dynamodb, ec2, eventbridge, iam, kms, s3, secretsmanager, stepfunctions, tagging


@dataclass
class Question:
    """May the caller do this to that? `new`: the resource is made by this call, so the request's tags are its tags. Without an action
    only the signature counts."""

    action: str | None
    resource: str
    keys: dict = field(default_factory=dict)
    new: bool = False

    @property
    def service(self):
        return self.action.split(":", 1)[0]


# The questions about the call that is being answered, between the moment its resource is asked for and the moment it is judged.
_questions = contextvars.ContextVar("questions", default=None)
# The judgements on one question: the role's policies first, then the resource's own.
_judgements = contextvars.ContextVar("judgements", default=None)
# The question that was answered with no.
_refused = contextvars.ContextVar("refused", default=None)


class Log:
    """One line per question about a role."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1)
        self.lock = threading.Lock()

    def write(self, principal, action, resource, decision, sid):
        role = principal.split(":assumed-role/", 1)[-1].split("/", 1)[0]
        line = {
            "at_ms": int(time.time() * 1000),
            "role": role,
            "action": action,
            "resource": resource,
            "decision": decision,
            "sid": sid,
        }
        with self.lock:
            self.file.write(json.dumps(line) + "\n")


def enforce(path):
    """Asks what AWS asks, from now on."""
    log = Log(path)
    _ask_every_question(log)
    _know_actions()
    _know_tags()
    _ask_roles_of_workflows(log)
    _ask_roles_of_schedules(log)
    _ask_roles_of_replication(log)


def _ask_every_question(log):
    """Every question of a call must be answered with yes. ministack asks one."""
    enforce_one, evaluate = iam_evaluator.enforce, iam_evaluator.evaluate
    resource_of, denied = iam_actions.extract_resource_arn, iam_actions.access_denied_response

    def extract_resource_arn(service, method, path, headers, body, params, region, account):
        call = Call(service, method, path, headers, body, params, region, account)
        if not _is_cbor(headers):
            call.resource = resource_of(service, method, path, headers, body, params, region, account)
        questions = call.questions()
        _questions.set(questions)
        return questions[0].resource

    def enforce_all(access_key, action, service, region, resource_arn="*", service_context=None):
        questions = _questions.get() or []
        _questions.set(None)
        _refused.set(None)
        if questions and questions[0].action is None:
            return iam_evaluator.check_credentials(access_key, service)
        if not questions or (questions[0].action, questions[0].resource) != (action, resource_arn):
            questions = [Question(action, resource_arn, new=True)]
        for index, question in enumerate(questions):
            context = dict(service_context or {})
            if not question.new:
                # The request's tags are those of what it makes or tags, not of what stands beside.
                context = {key: value for key, value in context.items() if not _is_request_tag(key)}
            context.update(question.keys)
            _judgements.set([])
            answer = enforce_one(
                access_key,
                question.action,
                service if index == 0 else question.service,
                region,
                resource_arn=question.resource,
                service_context=context,
            )
            judged = _judgements.get()
            _judgements.set(None)
            if judged:
                decision = "allow" if answer is None else "deny"
                log.write(judged[0].principal_arn, question.action, question.resource, decision, judged[0].matched_sid)
            if answer is not None:
                _refused.set(question)
                return answer
        return None

    def evaluate_and_note(context, policies, *limits):
        result = evaluate(context, policies, *limits)
        judgements = _judgements.get()
        if judgements is not None:
            result.principal_arn = result.principal_arn or context.principal_arn
            judgements.append(result)
        return result

    def access_denied_response(service, action, principal_arn, *arguments, **named):
        """AWS names the resource, too. What is no refusal of ours (a wrong signature) has a code of its own."""
        refused = _refused.get()
        if refused and not named.get("error_code"):
            action = refused.action
            named.update(message=refusal(principal_arn, refused.action, refused.resource, named.get("explicit_deny")))
        return denied(service, action, principal_arn, *arguments, **named)

    # Route 53 wraps its errors; ministack refuses in S3's way, which other SDKs cannot read.
    # https://docs.aws.amazon.com/Route53/latest/APIReference/requests-rest-responses.html
    iam_actions._SERVICE_PROTOCOL["route53"] = "query-xml"
    iam_actions._QUERY_XML_NS["route53"] = "https://route53.amazonaws.com/doc/2013-04-01/"
    iam_actions.extract_resource_arn = extract_resource_arn
    iam_actions.access_denied_response = access_denied_response
    iam_evaluator.enforce = enforce_all
    iam_evaluator.evaluate = evaluate_and_note


def _is_cbor(headers):
    """CloudWatch's binary protocol. ministack reads every body as JSON when it looks for the resource, and breaks the connection
    over this one; `Call.ask_cloudwatch` reads it."""
    return "cbor" in headers.get("content-type", "") or "cbor" in headers.get("smithy-protocol", "")


def refusal(principal, action, resource, explicit=False):
    """What AWS says: who may not do what to what, and why.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html"""
    reason = (
        "with an explicit deny in an identity-based policy"
        if explicit
        else f"because no identity-based policy allows the {action} action"
    )
    return f"User: {principal} is not authorized to perform: {action} on resource: {resource} {reason}"


def _is_request_tag(key):
    return key.lower().startswith("aws:requesttag/") or key.lower() == "aws:tagkeys"


def _know_actions():
    """The action of a REST call is its operation. ministack guesses Lambda's from the path (it takes a concurrency setting that is
    removed for one that is put), lets CloudWatch's binary protocol pass unasked, and takes the first version that S3 is to delete
    for an object."""
    original = iam_actions.extract_iam_action
    names = {"Invoke": "InvokeFunction", "InvokeWithResponseStream": "InvokeFunction"}
    iam_actions._BOTOCORE_SERVICE_MAP["lambda"] = ["lambda"]

    def extract_iam_action(service, method, path, headers, body, params):
        if service == "lambda":
            operation = iam_actions._match_rest_action("lambda", method, path, params)
            if operation:
                return f"lambda:{names.get(operation, operation)}"
        operation = re.search(r"/service/GraniteServiceVersion20100801/operation/(\w+)$", path)
        if service == "monitoring" and operation:
            return f"cloudwatch:{operation.group(1)}"
        if service == "s3" and method == "POST" and "delete" in params:
            targets = iam_actions._s3_batch_delete_targets(path.strip("/").split("/", 1)[0], body)
            if targets and targets[0][1]:
                return "s3:DeleteObjectVersion"
        return original(service, method, path, headers, body, params)

    iam_actions.extract_iam_action = extract_iam_action


def _know_tags():
    """Conditions on tags. ministack does not look for the tags of an EC2 request, nor for those of most live resources."""
    operations, tags_of = iam_actions._tag_operations, tagging.resource_tags

    class Every:
        def __contains__(self, _operation):
            return True

    iam_actions._tag_operations = lambda service: Every() if service == "ec2" else operations(service)

    def resource_tags(arn):
        parts = arn.split(":", 5)
        if len(parts) == 6 and parts[2] == "ec2":
            listed = ec2._tags.get(parts[5].rsplit("/", 1)[-1]) or []
            return {tag["Key"]: tag["Value"] for tag in listed}
        return tags_of(arn)

    tagging.resource_tags = resource_tags


# What EC2 asks about, by operation: (parameter, type of resource). `+` is the thing that the call makes.
_EC2 = {
    "CreateVpc": [("+", "vpc")],
    "CreateSubnet": [("+", "subnet"), ("VpcId", "vpc")],
    "CreateSecurityGroup": [("+", "security-group"), ("VpcId", "vpc")],
    "CreateRouteTable": [("+", "route-table"), ("VpcId", "vpc")],
    "CreateVpcEndpoint": [
        ("+", "vpc-endpoint"),
        ("VpcId", "vpc"),
        ("RouteTableId", "route-table"),
        ("SubnetId", "subnet"),
        ("SecurityGroupId", "security-group"),
    ],
    "ModifyVpcEndpoint": [
        ("VpcEndpointId", "vpc-endpoint"),
        ("AddRouteTableId", "route-table"),
        ("RemoveRouteTableId", "route-table"),
        ("AddSubnetId", "subnet"),
        ("RemoveSubnetId", "subnet"),
        ("AddSecurityGroupId", "security-group"),
        ("RemoveSecurityGroupId", "security-group"),
    ],
    "CreateRoute": [("RouteTableId", "route-table")],
    "DeleteRoute": [("RouteTableId", "route-table")],
    "ReplaceRoute": [("RouteTableId", "route-table")],
    "AssociateRouteTable": [("RouteTableId", "route-table"), ("SubnetId", "subnet")],
    "ReplaceRouteTableAssociation": [("RouteTableId", "route-table")],
    "DeleteVpc": [("VpcId", "vpc")],
    "DeleteSubnet": [("SubnetId", "subnet")],
    "DeleteSecurityGroup": [("GroupId", "security-group")],
    "DeleteRouteTable": [("RouteTableId", "route-table")],
    "DeleteVpcEndpoints": [("VpcEndpointId", "vpc-endpoint")],
    "ModifyVpcAttribute": [("VpcId", "vpc")],
    "ModifySubnetAttribute": [("SubnetId", "subnet")],
    "AuthorizeSecurityGroupIngress": [("GroupId", "security-group")],
    "AuthorizeSecurityGroupEgress": [("GroupId", "security-group")],
    "RevokeSecurityGroupIngress": [("GroupId", "security-group")],
    "RevokeSecurityGroupEgress": [("GroupId", "security-group")],
    "ModifySecurityGroupRules": [("GroupId", "security-group")],
    "UpdateSecurityGroupRuleDescriptionsIngress": [("GroupId", "security-group")],
    "UpdateSecurityGroupRuleDescriptionsEgress": [("GroupId", "security-group")],
}
_EC2_TYPES = {
    "vpc": "vpc",
    "subnet": "subnet",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "rtb": "route-table",
    "vpce": "vpc-endpoint",
    "acl": "network-acl",
    "igw": "internet-gateway",
}
# What RDS asks about: every resource that a call names, by the name of the parameter.
_RDS = {
    "DBClusterIdentifier": "cluster",
    "TargetDbClusterIdentifier": "cluster",
    "DbClusterIdentifier": "cluster",
    "SourceDBClusterIdentifier": "cluster",
    "DBInstanceIdentifier": "db",
    "DBSubnetGroupName": "subgrp",
    "DBClusterParameterGroupName": "cluster-pg",
    "GlobalClusterIdentifier": "global-cluster",
    "TargetDBClusterSnapshotIdentifier": "cluster-snapshot",
    "SourceDBClusterSnapshotIdentifier": "cluster-snapshot",
    "DBClusterSnapshotIdentifier": "cluster-snapshot",
    "SnapshotIdentifier": "cluster-snapshot",
    "ResourceName": "",
}


class Call:
    """One call, as far as it decides what is asked."""

    def __init__(self, service, method, path, headers, body, params, region, account):
        self.wire = service
        self.method, self.path, self.headers, self.body, self.params = method, path, headers, body, params
        self.region, self.account = region, account
        self.action = iam_actions.extract_iam_action(service, method, path, headers, body, params) or ""
        self.service, _, self.operation = self.action.partition(":")
        self.resource = "*"
        self._json = None

    def one(self, name):
        return iam_actions._query_param(self.params, name)

    def many(self, name):
        """A parameter that may be a list: `Name`, `Name.1`, `Name.member.1`."""
        listed = re.compile(re.escape(name) + r"(?:\.(?:\w+\.)?\d+)?$")
        values = [iam_actions._query_param(self.params, key) for key in self.params if listed.match(key)]
        return [value for value in values if value]

    @property
    def json(self):
        if self._json is None:
            try:
                self._json = json.loads(self.body or b"{}")
            except ValueError:
                self._json = {}
            if not isinstance(self._json, dict):
                self._json = {}
        return self._json

    def arn(self, service, resource, region=None):
        region = self.region if region is None else region
        return f"arn:aws:{service}:{region}:{self.account}:{resource}"

    def questions(self):
        ask = getattr(self, f"ask_{self.service}", None)
        asked = ask() if ask else None
        return asked or [Question(self.action, self.resource, new=True)]

    def passing(self, role, service):
        """Whoever gives a role to a service passes it on: iam:PassRole."""
        if not isinstance(role, str) or not role:
            return []
        return [Question("iam:PassRole", role, {"iam:PassedToService": f"{service}.amazonaws.com"})]

    def through(self, action, key, service, **context):
        """A service uses the caller's right to a key: forward access sessions."""
        if not key or key.startswith("alias/aws/"):
            return []
        if key.startswith("alias/"):
            key = kms._aliases.get(self.arn("kms", key)) or key
        arn = key if key.startswith("arn:") else self.arn("kms", f"key/{key}")
        keys = {"kms:ViaService": f"{service}.{arn.split(':')[3]}.amazonaws.com"}
        keys.update({f"kms:EncryptionContext:{name}": value for name, value in context.items()})
        return [Question(f"kms:{action}", arn, keys)]

    def ask_ec2(self):
        asked = []
        if self.operation in ("CreateTags", "DeleteTags"):
            for name in self.many("ResourceId"):
                kind = _EC2_TYPES.get(name.split("-", 1)[0], "*")
                asked.append(Question(self.action, self.arn("ec2", f"{kind}/{name}"), new=True))
            return asked
        for parameter, kind in _EC2.get(self.operation, []):
            if parameter == "+":
                asked.append(Question(self.action, self.arn("ec2", f"{kind}/*"), new=True))
                continue
            for name in self.many(parameter):
                asked.append(Question(self.action, self.arn("ec2", f"{kind}/{name}")))
        if self.operation == "DisassociateRouteTable":
            wanted = self.one("AssociationId")
            for name, table in ec2._route_tables.items():
                for association in table.get("Associations", []):
                    if wanted in (association.get("RouteTableAssociationId"), association.get("AssociationId")):
                        asked.append(Question(self.action, self.arn("ec2", f"route-table/{name}")))
        # Tags at creation are a second action on the new thing.
        for index in range(1, 9):
            kind = self.one(f"TagSpecification.{index}.ResourceType")
            if kind:
                made = self.arn("ec2", f"{kind}/*")
                asked.append(Question("ec2:CreateTags", made, {"ec2:CreateAction": self.operation}, new=True))
        return asked

    def ask_rds(self):
        if self.operation.startswith("Describe"):
            return [Question(self.action, "*")]
        resources = []
        for parameter, kind in _RDS.items():
            for name in self.many(parameter):
                if name.startswith("arn:"):
                    resources.append(name)
                elif kind == "global-cluster":
                    resources.append(self.arn("rds", f"{kind}:{name}", region=""))
                else:
                    resources.append(self.arn("rds", f"{kind}:{name}"))
        asked = [Question(self.action, resource, new=True) for resource in dict.fromkeys(resources)]
        if self.operation.startswith(("Create", "Copy", "Restore")) and asked and self.one("Tags.Tag.1.Key"):
            asked.append(Question("rds:AddTagsToResource", asked[0].resource, new=True))
        if self.operation in (
            "CreateDBCluster",
            "ModifyDBCluster",
            "CopyDBClusterSnapshot",
            "RestoreDBClusterFromSnapshot",
        ):
            for action in ("DescribeKey", "CreateGrant"):
                asked += self.through(action, self.one("KmsKeyId"), "rds")
        return asked

    def ask_iam(self):
        if self.action == "iam:SimulatePrincipalPolicy":
            # Whose policies are simulated, not whose are changed.
            return [Question(self.action, self.one("PolicySourceArn"))]
        name = self.one("RoleName")
        if self.operation == "CreatePolicy":
            policy = self.arn("iam", f"policy{self.one('Path') or '/'}{self.one('PolicyName')}", region="")
            tagging = [Question("iam:TagPolicy", policy, new=True)] if self.one("Tags.member.1.Key") else []
            return [Question(self.action, policy, new=True), *tagging]
        if not name:
            return None
        role = iam._roles.get(name)
        arn = self.arn("iam", f"role/{name}", region="")
        boundary = self.one("PermissionsBoundary")
        if self.operation == "CreateRole":
            arn = self.arn("iam", f"role{self.one('Path') or '/'}{name}", region="")
        elif role:
            arn, boundary = role["Arn"], boundary or role.get("PermissionsBoundary")
        keys = {}
        if self.one("PolicyArn"):
            keys["iam:PolicyARN"] = self.one("PolicyArn")
        if boundary:
            keys["iam:PermissionsBoundary"] = boundary
        asked = [Question(self.action, arn, keys, new=True)]
        if self.operation == "CreateRole" and self.one("Tags.member.1.Key"):
            asked.append(Question("iam:TagRole", arn, new=True))
        return asked

    def ask_lambda(self):
        name = self.json.get("FunctionName") if self.operation == "CreateFunction" else None
        resource = self.arn("lambda", f"function:{name}") if name else self.resource
        asked = [Question(self.action, resource, new=True)]
        if self.operation in ("CreateFunction", "UpdateFunctionConfiguration"):
            asked += self.passing(self.json.get("Role"), "lambda")
        code = self.json.get("Code") or self.json
        if self.operation in ("CreateFunction", "UpdateFunctionCode") and code.get("S3Bucket"):
            asked.append(Question("s3:GetObject", f"arn:aws:s3:::{code['S3Bucket']}/{code.get('S3Key')}"))
        if self.operation == "CreateFunction" and self.json.get("Tags"):
            asked.append(Question("lambda:TagResource", resource, new=True))
        return asked

    def ask_states(self):
        resource = self.json.get("resourceArn") or self.resource
        asked = [Question(self.action, resource, new=True)]
        if self.operation in ("CreateStateMachine", "UpdateStateMachine"):
            asked += self.passing(self.json.get("roleArn"), "states")
        if self.operation == "CreateStateMachine" and self.json.get("tags"):
            asked.append(Question("states:TagResource", resource, new=True))
        return asked

    def ask_scheduler(self):
        asked = [Question(self.action, self.resource, new=True)]
        if self.operation in ("CreateSchedule", "UpdateSchedule"):
            asked += self.passing((self.json.get("Target") or {}).get("RoleArn"), "scheduler")
        return asked

    def ask_s3(self):
        asked = [Question(self.action, self.resource, new=True)]
        bucket = self.path.strip("/").split("/", 1)[0]
        if self.operation == "PutReplicationConfiguration":
            role = re.search(rb"<Role>([^<]+)</Role>", self.body or b"")
            asked += self.passing(role.group(1).decode() if role else None, "s3")
        if self.operation in ("PutObject", "GetObject", "GetObjectVersion"):
            action = "GenerateDataKey" if self.operation == "PutObject" else "Decrypt"
            asked += self.through(action, _bucket_key(bucket), "s3", **_s3_context(bucket, self.path))
        return asked

    def ask_dynamodb(self):
        resource = self.json.get("ResourceArn") or self.resource
        keys = {}
        item = self.json.get("Item") or self.json.get("Key") or {}
        table = dynamodb._tables.get(self.json.get("TableName")) or {}
        for element in table.get("KeySchema", []):
            if element.get("KeyType") == "HASH" and element.get("AttributeName") in item:
                keys["dynamodb:LeadingKeys"] = list(item[element["AttributeName"]].values())
        asked = [Question(self.action, resource, keys, new=True)]
        if self.operation == "CreateTable" and self.json.get("Tags"):
            asked.append(Question("dynamodb:TagResource", resource, new=True))
        for change in self.json.get("ReplicaUpdates") or []:
            asked += self.replicas(resource, "TableReplica", change)
        for change in self.json.get("GlobalTableWitnessUpdates") or []:
            asked += self.replicas(resource, "GlobalTableWitness", change)
        return asked

    def replicas(self, table, what, change):
        """Who adds a replica copies what is there; who removes one needs less.
        https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/V2gt_IAM.html"""
        asked = []
        for verb in ("Create", "Delete"):
            region = (change.get(verb) or {}).get("RegionName")
            if not region:
                continue
            there = self.arn("dynamodb", table.split(":", 5)[-1], region=region)
            asked.append(Question(f"dynamodb:{verb}{what}", table))
            if (verb, what) == ("Create", "TableReplica"):
                copying = ("Query", "Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem")
                asked += [Question(f"dynamodb:{name}", there) for name in copying]
        return asked

    def ask_secretsmanager(self):
        body, resource = self.json, self.resource
        if self.operation == "CreateSecret":
            # Six characters that Secrets Manager chooses end the name in the ARN.
            resource = self.arn("secretsmanager", f"secret:{body.get('Name')}-abcdef")
        asked = [Question(self.action, resource, new=True)]
        _key, secret = secretsmanager._resolve(body.get("SecretId") or "")
        key = body.get("KmsKeyId") or (secret or {}).get("KmsKeyId")
        if self.operation in ("GetSecretValue", "BatchGetSecretValue"):
            asked += self.through("Decrypt", key, "secretsmanager", SecretARN=resource)
        if self.operation in ("CreateSecret", "PutSecretValue", "UpdateSecret"):
            for action in ("GenerateDataKey", "Decrypt"):
                asked += self.through(action, key, "secretsmanager", SecretARN=resource)
        if self.operation == "CreateSecret":
            if body.get("Tags"):
                asked.append(Question("secretsmanager:TagResource", resource, new=True))
            if body.get("AddReplicaRegions"):
                asked.append(Question("secretsmanager:ReplicateSecretToRegions", resource))
        return asked

    def ask_kms(self):
        body = self.json
        if self.operation in ("CreateAlias", "DeleteAlias", "UpdateAlias"):
            alias = self.arn("kms", body.get("AliasName", ""))
            asked = [Question(self.action, alias)]
            target = body.get("TargetKeyId") or kms._aliases.get(alias)
            if target:
                key = target if target.startswith("arn:") else self.arn("kms", f"key/{target}")
                asked.append(Question(self.action, key))
            return asked
        name, resource = body.get("KeyId") or "", self.resource
        if "alias/" in name:
            # Policies are about keys, not about what they are called. A name that is no key's is not found, whoever asks.
            key = kms._aliases.get(name if name.startswith("arn:") else self.arn("kms", name))
            if not key:
                return [Question(None, resource)]
            resource = self.arn("kms", f"key/{key}")
        asked = [Question(self.action, resource, new=self.operation == "CreateKey" or "Tag" in self.operation)]
        made = self.arn("kms", "key/*", region=body.get("ReplicaRegion"))
        if self.operation == "ReplicateKey":
            # The replica is a key that is created in its own region.
            asked.append(Question("kms:CreateKey", made, new=True))
        if self.operation in ("CreateKey", "ReplicateKey") and body.get("Tags"):
            asked.append(Question("kms:TagResource", made, new=True))
        return asked

    def ask_logs(self):
        asked = [Question(self.action, self.resource, new=True)]
        if self.operation == "CreateLogGroup" and self.json.get("tags"):
            asked.append(Question("logs:TagResource", self.resource, new=True))
        return asked

    def ask_sns(self):
        resource = self.one("ResourceArn") or self.resource
        asked = [Question(self.action, resource, new=True)]
        if self.operation == "CreateTopic" and self.one("Tags.member.1.Key"):
            asked.append(Question("sns:TagResource", resource, new=True))
        return asked

    def ask_events(self):
        if self.operation == "PutEvents":
            # Each event is asked about with what it says of itself.
            asked = []
            for entry in self.json.get("Entries") or []:
                bus = entry.get("EventBusName") or "default"
                bus = bus if bus.startswith("arn:") else self.arn("events", f"event-bus/{bus}")
                keys = {"events:source": entry.get("Source", ""), "events:detail-type": entry.get("DetailType", "")}
                asked.append(Question(self.action, bus, keys, new=True))
            return asked
        name = self.json.get("Name") or self.json.get("Rule")
        resource = self.json.get("ResourceARN") or self.resource
        if name and self.json.get("EventBusName", "default") == "default":
            resource = self.arn("events", f"rule/{name}")
        asked = [Question(self.action, resource, new=True)]
        if self.operation == "PutRule" and self.json.get("Tags"):
            asked.append(Question("events:TagResource", resource, new=True))
        return asked

    def ask_cloudwatch(self):
        body = self.json
        if _is_cbor(self.headers) and self.body:
            body = cbor2.loads(self.body)
        names = body.get("AlarmNames") if self.operation == "DeleteAlarms" else [body.get("AlarmName")]
        resources = [self.arn("cloudwatch", f"alarm:{name}") for name in names or [] if name]
        dashboards = body.get("DashboardNames") or [body.get("DashboardName")]
        resources += [self.arn("cloudwatch", f"dashboard/{name}", region="") for name in dashboards if name]
        resources += [body["ResourceARN"]] if body.get("ResourceARN") else []
        keys = {"cloudwatch:namespace": body["Namespace"]} if body.get("Namespace") else {}
        asked = [Question(self.action, resource, keys, new=True) for resource in resources or ["*"]]
        if self.operation == "PutMetricAlarm" and body.get("Tags"):
            asked.append(Question("cloudwatch:TagResource", resources[0], new=True))
        return asked

    def ask_route53(self):
        resource = self.resource
        check = re.search(r"/healthcheck/([^/]+)", self.path)
        if check:
            resource = f"arn:aws:route53:::healthcheck/{check.group(1)}"
        keys = {}
        if self.operation == "ChangeResourceRecordSets":
            text = (self.body or b"").decode()
            names = re.findall(r"<ResourceRecordSet>.*?<Name>([^<]+)</Name>", text, re.DOTALL)
            normal = [name.lower().rstrip(".").replace("\\052", "*") for name in names]
            keys["route53:ChangeResourceRecordSetsNormalizedRecordNames"] = normal
        return [Question(self.action, resource, keys, new=True)]

    def ask_apigateway(self):
        asked = [Question(self.action, self.resource, new=True)]
        if self.method == "PATCH" and self.path.rstrip("/") == "/account":
            for operation in self.json.get("patchOperations") or []:
                if operation.get("path") == "/cloudwatchRoleArn":
                    asked += self.passing(operation.get("value"), "apigateway")
        return asked


def _bucket_key(bucket):
    """The customer's key with which a bucket encrypts by default."""
    stored = s3._bucket_encryption.get(bucket)
    text = stored.decode() if isinstance(stored, bytes) else str(stored or "")
    found = re.search(r"KMSMasterKeyID['\"]?\s*[>:]\s*['\"]?([^<'\",}]+)", text)
    return unquote(found.group(1).strip()) if found and "aws:kms" in text else ""


def _s3_context(bucket, path):
    """Under a bucket key the encryption context is the bucket, else the object.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html"""
    stored = s3._bucket_encryption.get(bucket)
    text = stored.decode() if isinstance(stored, bytes) else str(stored or "")
    with_bucket_key = re.search(r"BucketKeyEnabled['\"]?\s*[>:]\s*['\"]?true", text, re.IGNORECASE)
    name = bucket if with_bucket_key else path.strip("/")
    return {"aws:s3:arn": f"arn:aws:s3:::{name}"}


class Denied(Exception):
    """A role that a service took may not do what it was to do."""


def _ask(log, role_arn, action, resource, keys=None):
    """Asks about a role that a service has taken."""
    account, name = role_arn.split(":")[4] or get_account_id(), role_arn.rsplit("/", 1)[-1]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{account}:assumed-role/{name}/service",
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=get_region(),
        source_ip="127.0.0.1",
        secure_transport=True,
        service_context={key.lower(): value for key, value in (keys or {}).items()},
    )
    policies = iam_evaluator._gather_role_policies(name, account)
    result = iam_evaluator.evaluate(context, policies, *iam_evaluator._permissions_boundary(iam._roles, name, account))
    allowed = result.decision == "Allow"
    log.write(context.principal_arn, action, resource, "allow" if allowed else "deny", result.matched_sid)
    if not allowed:
        raise Denied(refusal(context.principal_arn, action, resource))


def _ask_roles_of_workflows(log):
    """A task of a state machine is done with the state machine's role. ministack asks nobody."""
    execute, call, invoke = stepfunctions._execute_task, stepfunctions._call_lambda, stepfunctions._invoke_resource
    role = contextvars.ContextVar("workflow_role", default=None)
    # Integrations without Lambda, which is asked about where it is called.
    actions = {"sns:publish": ("sns:Publish", "TopicArn"), "states:startExecution": ("states:StartExecution", "StateMachineArn")}

    def execute_task(state, raw_input, execution, context):
        machine = stepfunctions._state_machines.get(execution.get("stateMachineArn")) or {}
        role.set(machine.get("roleArn"))
        return execute(state, raw_input, execution, context)

    def ask(action, resource):
        if not role.get():
            return
        try:
            _ask(log, role.get(), action, resource)
        except Denied as denied:
            service = action.split(":", 1)[0]
            name = "Lambda.AWSLambdaException" if service == "lambda" else f"{service.upper()}.AccessDeniedException"
            raise stepfunctions._ExecutionError(name, str(denied)) from denied

    def call_lambda(reference, event):
        arn = reference if str(reference).startswith("arn:") else None
        name = str(reference).rsplit(":function:", 1)[-1]
        ask("lambda:InvokeFunction", arn or f"arn:aws:lambda:{get_region()}:{get_account_id()}:function:{name}")
        return call(reference, event)

    def invoke_resource(resource, data):
        for name, (action, parameter) in actions.items():
            if f":states:::{name}" in resource:
                ask(action, data.get(parameter, "*"))
        integration = re.search(r":states:::(?:aws-sdk:)?events:putEvents", resource)
        if integration:
            for entry in data.get("Entries") or []:
                bus = entry.get("EventBusName") or "default"
                arn = f"arn:aws:events:{get_region()}:{get_account_id()}:event-bus/{bus}"
                ask("events:PutEvents", bus if bus.startswith("arn:") else arn)
        return invoke(resource, data)

    stepfunctions._execute_task = execute_task
    stepfunctions._call_lambda = call_lambda
    stepfunctions._invoke_resource = invoke_resource


def _ask_roles_of_schedules(log):
    """A schedule calls its target with the schedule's role. ministack asks nobody."""
    original = eventbridge._invoke_target
    actions = {"lambda": "lambda:InvokeFunction", "states": "states:StartExecution", "sns": "sns:Publish"}

    def invoke_target(target, event, rule, *more):
        role, arn = target.get("RoleArn"), target.get("Arn", "")
        action = actions.get(arn.split(":")[2] if arn.startswith("arn:") else "")
        if role and action:
            _ask(log, role, action, arn)
        return original(target, event, rule, *more)

    eventbridge._invoke_target = invoke_target


def _ask_roles_of_replication(log):
    """S3 reads and writes with the rule's role; a replica that may not be written marks the object FAILED. ministack asks nobody.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/setting-repl-config-perm-overview.html"""
    write, mark = s3._maybe_replicate, s3._maybe_replicate_delete_marker
    destination = s3._replication_destination

    def replicating(bucket, key, rule, role, actions):
        target = (rule.get("Destination") or {}).get("Bucket", "").split(":::")[-1]
        source, copy = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{target}"
        _ask(log, role, "s3:GetReplicationConfiguration", source)
        _ask(log, role, "s3:ListBucket", source)
        for action in ("s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"):
            _ask(log, role, action, f"{source}/{key}")
        for action in actions:
            _ask(log, role, action, f"{copy}/{key}")
        for action, name in (("kms:Decrypt", bucket), ("kms:Encrypt", target)):
            used = _bucket_key(name)
            if used and "s3:ReplicateObject" in actions:
                region = s3.bucket_region(name)
                arn = used if used.startswith("arn:") else f"arn:aws:kms:{region}:{get_account_id()}:key/{used}"
                keys = {
                    "kms:ViaService": f"s3.{region}.amazonaws.com",
                    "kms:EncryptionContext:aws:s3:arn": f"arn:aws:s3:::{name}/{key}",
                }
                _ask(log, role, action, arn, keys)

    def replication_destination(bucket, key, rule, role):
        found = destination(bucket, key, rule, role)
        if found is None:
            return None
        try:
            replicating(bucket, key, rule, role, _replicating.get())
        except Denied:
            return None
        return found

    def maybe_replicate(*arguments, **named):
        _replicating.set(("s3:ReplicateObject", "s3:ReplicateTags"))
        return write(*arguments, **named)

    def maybe_replicate_delete_marker(*arguments):
        _replicating.set(("s3:ReplicateDelete",))
        return mark(*arguments)

    s3._replication_destination = replication_destination
    s3._maybe_replicate = maybe_replicate
    s3._maybe_replicate_delete_marker = maybe_replicate_delete_marker


_replicating = contextvars.ContextVar("replicating", default=())
