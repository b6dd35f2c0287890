"""What ministack 1.5.33 lacks and the product's resource kinds rely on, added to it before it serves. Each function says what AWS
does; a test in `tests/edge_network/gaps.rs` fails when ministack does it by itself, and the function can go.
"""

import asyncio
import contextvars
import datetime
import html
import itertools
import json

from ministack.core import iam_evaluator, lambda_runtime
from ministack.core.responses import get_region, json_response
from ministack.services import apigateway_v1 as v1
from ministack.services import (
    cloudwatch_logs,
    dynamodb,
    ec2,
    iam,
    lambda_svc,
    rds,
    route53,
    secretsmanager,
    stepfunctions,
    tagging,
)


def recovery_periods():
    """DescribeContinuousBackups says how many days back a table can be restored: what UpdateContinuousBackups was told, or 35.
    ministack forgets the days."""
    describe, update = dynamodb._describe_continuous_backups, dynamodb._update_continuous_backups
    days = {}

    def shown(data, answer):
        status, headers, body = answer
        content = json.loads(body)
        description = content.get("ContinuousBackupsDescription", {}).get("PointInTimeRecoveryDescription", {})
        if description.get("PointInTimeRecoveryStatus") == "ENABLED":
            description["RecoveryPeriodInDays"] = days.get((get_region(), data.get("TableName")), 35)
        return status, headers, json.dumps(content).encode()

    def updated(data):
        answer = update(data)
        told = data.get("PointInTimeRecoverySpecification", {}).get("RecoveryPeriodInDays")
        days[(get_region(), data.get("TableName"))] = told or 35
        return shown(data, answer)

    dynamodb._update_continuous_backups = updated
    dynamodb._describe_continuous_backups = lambda data: shown(data, describe(data))


def vpc_endpoints():
    """DescribeVpcEndpoints honours filters by tag and reports the security groups and private DNS of an interface endpoint, and
    the policy, which AWS gives to those who give none; ModifyVpcEndpoint changes them, and resets the policy. ministack answers
    every description with all endpoints, forgets groups and private DNS, and never shows a policy."""
    create, modify, fields = ec2._create_vpc_endpoint, ec2._modify_vpc_endpoint, ec2._vpce_fields_xml

    def created(parameters):
        known = set(ec2._vpc_endpoints)
        answer = create(parameters)
        for endpoint_id in set(ec2._vpc_endpoints) - known:
            endpoint = ec2._vpc_endpoints[endpoint_id]
            endpoint["Groups"] = ec2._parse_member_list(parameters, "SecurityGroupId")
            endpoint["PrivateDnsEnabled"] = ec2._p(parameters, "PrivateDnsEnabled") == "true"
        return answer

    def modified(parameters):
        endpoint = ec2._vpc_endpoints.get(ec2._p(parameters, "VpcEndpointId"))
        if endpoint:
            removed = ec2._parse_member_list(parameters, "RemoveSecurityGroupId")
            groups = endpoint.get("Groups", []) + ec2._parse_member_list(parameters, "AddSecurityGroupId")
            endpoint["Groups"] = [group for group in dict.fromkeys(groups) if group not in removed]
            private_dns = ec2._p(parameters, "PrivateDnsEnabled")
            if private_dns:
                endpoint["PrivateDnsEnabled"] = private_dns == "true"
            if ec2._p(parameters, "ResetPolicy") == "true":
                endpoint.pop("PolicyDocument", None)
        return modify(parameters)

    def described(parameters):
        wanted = ec2._parse_member_list(parameters, "VpcEndpointId")
        filters = ec2._parse_filters(parameters)
        items = "".join(
            ec2._vpce_fields_xml(endpoint)
            for endpoint in ec2._vpc_endpoints.values()
            if (not wanted or endpoint["VpcEndpointId"] in wanted)
            and ec2._resource_matches_tag_filters(endpoint["VpcEndpointId"], filters)
            and endpoint["VpcId"] in filters.get("vpc-id", [endpoint["VpcId"]])
        )
        return ec2._xml(200, "DescribeVpcEndpointsResponse", f"<vpcEndpointSet>{items}</vpcEndpointSet>")

    def with_groups(endpoint, tag="item"):
        groups = "".join(f"<item><groupId>{group}</groupId></item>" for group in endpoint.get("Groups", []))
        more = (
            f"<groupSet>{groups}</groupSet>"
            f"<privateDnsEnabled>{str(endpoint.get('PrivateDnsEnabled', False)).lower()}</privateDnsEnabled>"
            f"<policyDocument>{html.escape(endpoint.get('PolicyDocument') or OPEN_POLICY)}</policyDocument>"
        )
        return fields(endpoint, tag).replace("<subnetIdSet>", f"{more}<subnetIdSet>", 1)

    ec2._vpce_fields_xml = with_groups
    ec2._ACTION_MAP.update(
        CreateVpcEndpoint=created, ModifyVpcEndpoint=modified, DescribeVpcEndpoints=described
    )


# What an endpoint has that was given no policy.
OPEN_POLICY = (
    '{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}'
)


def simulated_roles():
    """SimulatePrincipalPolicy takes the ARN of a role with its path, and what the call would carry. ministack takes the path for a part
    of the name, finds no such role, and denies everything; and it leaves out what is carried."""
    simulate, evaluate = iam._simulate_principal_policy, iam_evaluator.evaluate
    carried = contextvars.ContextVar("carried", default=None)

    def evaluated(context, *more, **named):
        context.service_context.update(carried.get() or {})
        return evaluate(context, *more, **named)

    def entries(parameters):
        found = {}
        for number in itertools.count(1):
            entry = f"ContextEntries.member.{number}"
            key = iam._p(parameters, f"{entry}.ContextKeyName")
            if not key:
                return found
            value = iam._p(parameters, f"{entry}.ContextKeyValues.member.1")
            many = iam._p(parameters, f"{entry}.ContextKeyType").endswith("List")
            # The evaluator looks keys up in lower case.
            found[key.lower()] = [value] if many else value

    def simulated(parameters):
        parameters = dict(parameters)
        source = iam._p(parameters, "PolicySourceArn")
        before, role, path_and_name = source.partition(":role/")
        if role:
            arn = before + role + path_and_name.rsplit("/", 1)[-1]
            given = parameters["PolicySourceArn"]
            parameters["PolicySourceArn"] = [arn] if isinstance(given, list) else arn
        carried.set(entries(parameters))
        try:
            return simulate(parameters)
        finally:
            carried.set(None)

    iam_evaluator.evaluate = evaluated
    iam._IAM_HANDLERS.update(SimulatePrincipalPolicy=simulated)


def minor_upgrades():
    """ModifyDBInstance switches an instance's automatic minor upgrades on and off. ministack knows them from creation only."""
    modify = rds._modify_db_instance

    def modified(parameters):
        answer = modify(parameters)
        wanted = rds._p(parameters, "AutoMinorVersionUpgrade")
        instance = rds._instances.get(rds._p(parameters, "DBInstanceIdentifier"))
        if answer[0] == 200 and wanted and instance:
            instance["AutoMinorVersionUpgrade"] = wanted == "true"
        return answer

    rds._ACTION_MAP.update(ModifyDBInstance=modified)


def log_exports():
    """A cluster writes the logs it is told to into CloudWatch Logs, and DescribeDBClusters says which. ministack forgets them."""
    create, modify, fields = rds._create_db_cluster, rds._modify_db_cluster, rds._cluster_xml

    def change(parameters, enabled, disabled):
        cluster = rds._clusters.get(rds._p(parameters, "DBClusterIdentifier"))
        if cluster:
            exports = cluster.get("EnabledCloudwatchLogsExports", []) + rds._parse_member_list(parameters, enabled)
            gone = rds._parse_member_list(parameters, disabled)
            cluster["EnabledCloudwatchLogsExports"] = [log for log in dict.fromkeys(exports) if log not in gone]

    def created(parameters):
        answer = create(parameters)
        if answer[0] == 200:
            change(parameters, "EnableCloudwatchLogsExports", "-")
        return answer

    def modified(parameters):
        answer = modify(parameters)
        configuration = "CloudwatchLogsExportConfiguration."
        change(parameters, configuration + "EnableLogTypes", configuration + "DisableLogTypes")
        return answer

    def with_exports(cluster):
        logs = "".join(f"<member>{log}</member>" for log in cluster.get("EnabledCloudwatchLogsExports", []))
        return f"{fields(cluster)}<EnabledCloudwatchLogsExports>{logs}</EnabledCloudwatchLogsExports>"

    rds._cluster_xml = with_exports
    rds._ACTION_MAP.update(CreateDBCluster=created, ModifyDBCluster=modified)


def snapshots_of_failovers():
    """After an unplanned failover of a global database, the old primary is snapshotted when it is back: an automated snapshot, which
    CopyDBClusterSnapshot makes a manual one of, and RestoreDBClusterFromSnapshot a cluster. ministack knows none of the two, and
    loses nothing in a failover. The edge makes the record (`LocalRecordFormerWriter`) and knows where the data is. With a cluster
    AWS deletes its automated snapshots, not the manual ones."""

    delete = rds._ACTION_MAP["DeleteDBCluster"]

    def answered(action, snapshot):
        content = f"<DBClusterSnapshot>{rds._cluster_snapshot_xml(snapshot)}</DBClusterSnapshot>"
        return rds._xml(200, f"{action}Response", f"<{action}Result>{content}</{action}Result>")

    def missing(name):
        return rds._error("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot not found: {name}", 404)

    def recorded(parameters):
        at = int(rds._p(parameters, "AtMs")) / 1000
        stamp = datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%d-%H-%M-%S")
        for cluster in list(rds._clusters.values()):
            if not cluster.get("GlobalClusterIdentifier"):
                continue
            name = f"rds:unplanned-global-failover-{cluster['DBClusterIdentifier']}-{stamp}"
            snapshot = rds._create_cluster_snapshot_internal(name, cluster)
            snapshot.update(SnapshotType="automated", SnapshotCreateTime=rds._format_time(at))
            if not cluster.get("CopyTagsToSnapshot"):
                snapshot["TagList"] = []
            return answered("LocalRecordFormerWriter", snapshot)
        # Its cluster is gone, and its automated snapshots with it.
        return rds._xml(200, "LocalRecordFormerWriterResponse", "")

    def found(name):
        return rds._db_cluster_snapshots.get(name.split(":", 6)[6] if name.startswith("arn:") else name)

    def copied(parameters):
        source, target = (
            rds._p(parameters, f"{which}DBClusterSnapshotIdentifier") for which in ("Source", "Target")
        )
        original = found(source)
        if not original:
            return missing(source)
        if target in rds._db_cluster_snapshots:
            message = f"Cannot create the cluster snapshot because one with the identifier {target} already exists."
            return rds._error("DBClusterSnapshotAlreadyExistsFault", message, 400)
        arn = original["DBClusterSnapshotArn"].split(":cluster-snapshot:")[0] + f":cluster-snapshot:{target}"
        copy = {
            **original,
            "DBClusterSnapshotIdentifier": target,
            "DBClusterSnapshotArn": arn,
            "SnapshotType": "manual",
            "KmsKeyId": rds._p(parameters, "KmsKeyId") or original.get("KmsKeyId", ""),
            "TagList": rds._parse_tags(parameters),
        }
        rds._db_cluster_snapshots[target] = copy
        if copy["TagList"]:
            rds._tags[arn] = copy["TagList"]
        return answered("CopyDBClusterSnapshot", copy)

    def restored(parameters):
        name = rds._p(parameters, "SnapshotIdentifier")
        snapshot = found(name)
        if not snapshot:
            return missing(name)
        status, headers, body = rds._create_db_cluster(
            {
                **parameters,
                "EngineVersion": rds._p(parameters, "EngineVersion") or snapshot["EngineVersion"],
                "MasterUsername": snapshot["MasterUsername"],
                "MasterUserPassword": "as in the snapshot",
                "StorageEncrypted": str(snapshot["StorageEncrypted"]).lower(),
                "KmsKeyId": rds._p(parameters, "KmsKeyId") or snapshot["KmsKeyId"],
            }
        )
        return status, headers, body.replace(b"CreateDBCluster", b"RestoreDBClusterFromSnapshot")

    def deleted(parameters):
        answer = delete(parameters)
        if answer[0] == 200:
            cluster = rds._p(parameters, "DBClusterIdentifier")
            for name, snapshot in list(rds._db_cluster_snapshots.items()):
                if (snapshot["SnapshotType"], snapshot["DBClusterIdentifier"]) == ("automated", cluster):
                    del rds._db_cluster_snapshots[name]
        return answer

    rds._ACTION_MAP.update(
        LocalRecordFormerWriter=recorded,
        CopyDBClusterSnapshot=copied,
        RestoreDBClusterFromSnapshot=restored,
        DeleteDBCluster=deleted,
    )


def tag_listing():
    """The tagging API lists whatever carries a tag, Route 53's resources in us-east-1 only. ministack leaves these services out."""

    def of_ec2():
        for resource_id, tags in ec2._tags.items():
            known = (found for prefix, found in EC2_SORTS.items() if resource_id.startswith(prefix))
            sort, existing = next(known, (None, {}))
            if resource_id in existing:
                yield f"arn:aws:ec2:{tagging.get_region()}:{tagging._account()}:{sort}/{resource_id}", tags

    def of_rds():
        for arn, tags in rds._tags.items():
            if arn.split(":")[3] in ("", tagging.get_region()):
                yield arn, tags

    def of_logs():
        for name, group in cloudwatch_logs._log_groups.items():
            arn = f"arn:aws:logs:{tagging.get_region()}:{tagging._account()}:log-group:{name}"
            yield arn, tagging._normalise_flat(group.get("tags"))

    def of_step_functions():
        for arn, tags in stepfunctions._tags.items():
            yield arn, [{"Key": tag["key"], "Value": tag["value"]} for tag in tags]

    def of_route53():
        existing = {"hostedzone": route53._zones, "healthcheck": route53._health_checks}
        if tagging.get_region() == "us-east-1":
            for (sort, resource_id), tags in route53._tags.items():
                if resource_id not in existing.get(sort, ()):
                    continue
                yield f"arn:aws:route53:::{sort}/{resource_id}", tagging._normalise_flat(tags)

    def of_apis():
        for arn, tags in v1._v1_tags.items():
            if arn.split(":")[3] == tagging.get_region():
                yield arn, tagging._normalise_flat(tags)

    tagging._COLLECTORS.update(
        ec2=of_ec2,
        rds=of_rds,
        logs=of_logs,
        states=of_step_functions,
        route53=of_route53,
        apigateway=of_apis,
        secretsmanager=tagging._collect_secretsmanager,
    )


# How an id begins: how its ARN names the sort, and where the emulator keeps those that exist. It keeps the tags of others, too.
EC2_SORTS = {
    "vpc-": ("vpc", ec2._vpcs),
    "vpce-": ("vpc-endpoint", ec2._vpc_endpoints),
    "subnet-": ("subnet", ec2._subnets),
    "rtb-": ("route-table", ec2._route_tables),
    "sg-": ("security-group", ec2._security_groups),
}


def deleted_functions():
    """An event that waits for another attempt goes with its function. ministack starts the deleted function once more, with its
    old environment, and hands that process to the next function of the name.

    What still runs when its function is deleted brings no log group back that was deleted after it: Lambda makes one only for a
    role that may, and ours may not. ministack makes one for everybody."""
    execute, emit = lambda_svc._execute_function, lambda_svc._emit_lambda_logs

    def executed(function, event, *args, **kwargs):
        name = (function.get("config") or function).get("FunctionName")
        if name not in lambda_svc._functions:
            return {"error": True, "body": {"errorMessage": f"Function not found: {name}"}, "log": ""}
        return execute(function, event, *args, **kwargs)

    def emitted(function, *args, **kwargs):
        if (function.get("config") or function).get("FunctionName") in lambda_svc._functions:
            emit(function, *args, **kwargs)

    lambda_svc._execute_function = executed
    lambda_svc._emit_lambda_logs = emitted


def invocations_under_way():
    """A change of a function lets the invocations that run come to their end in their old environment. ministack kills them."""
    kill, release = lambda_runtime.kill_workers, lambda_runtime.release_worker
    leaving = set()

    def kill_idle(workers):
        workers = [worker for worker in workers if worker is not None]
        leaving.update(worker for worker in workers if worker.in_use)
        kill([worker for worker in workers if worker not in leaving])

    def released(worker):
        release(worker)
        if worker in leaving:
            leaving.discard(worker)
            kill([worker])

    lambda_runtime.kill_workers = kill_idle
    lambda_runtime.release_worker = released
    lambda_svc.release_worker = released


def stopped_executions():
    """A stopped execution makes no further attempt and stays stopped. ministack's goes on to retry the task that it is in, with a
    role that may be gone by then, and ends as failed."""
    execute, sleep, fail = stepfunctions._execute_task, stepfunctions._scaled_sleep, stepfunctions._fail_execution
    running = contextvars.ContextVar("running_execution", default=None)

    def execute_task(state, raw_input, execution, context):
        running.set(execution)
        return execute(state, raw_input, execution, context)

    def pause(seconds):
        sleep(seconds)
        execution = running.get()
        if execution is not None and execution["status"] == "ABORTED":
            # Ends the execution's thread, and nobody is told.
            raise SystemExit

    def failed(execution, error, cause):
        if execution["status"] != "ABORTED":
            fail(execution, error, cause)

    stepfunctions._execute_task = execute_task
    stepfunctions._scaled_sleep = pause
    stepfunctions._fail_execution = failed


def secret_replicas():
    """RemoveRegionsFromReplication deletes replicas; AWS deletes a secret only when it has none. ministack does not know the
    operation."""
    original = secretsmanager.handle_request

    async def handle_request(method, path, headers, body, query_params):
        if not headers.get("x-amz-target", "").endswith(".RemoveRegionsFromReplication"):
            return await original(method, path, headers, body, query_params)
        data = json.loads(body or "{}")
        _key, secret = secretsmanager._resolve(data.get("SecretId"))
        if not secret:
            message = "Secrets Manager can't find the specified secret."
            return secretsmanager.error_response_json("ResourceNotFoundException", message, 400)
        regions = data.get("RemoveReplicaRegions", [])
        statuses = secret.get("ReplicationStatus", [])
        gone = {**secret, "ReplicationStatus": [status for status in statuses if status.get("Region") in regions]}
        secretsmanager._delete_replicas(gone)
        secret["ReplicationStatus"] = [status for status in statuses if status.get("Region") not in regions]
        return json_response({"ARN": secret["ARN"], "ReplicationStatus": secret["ReplicationStatus"]})

    secretsmanager.handle_request = handle_request


def api_documents():
    """ImportRestApi makes an API from an OpenAPI document, PutRestApi replaces its definition in place, and TagResource changes the
    tags that GetRestApis and GetStage show. ministack makes an empty API called "unnamed" from the first, answers the second
    with 404, and shows the tags of creation for ever."""
    v1.handle_request = handle_request
    v1._tag_v1_resource = _tag_and_show
    v1._untag_v1_resource = _untag_and_show


_original = v1.handle_request


def _one(query, key):
    value = (query or {}).get(key)
    return value[0] if isinstance(value, list) and value else value


def _resource_id(api_id, path):
    for rid, resource in v1._resources.get(api_id, {}).items():
        if resource.get("path") == path:
            return rid
    return None


def _extras(api_id, spec):
    """What the importer leaves out: validators, request parameters, gateway responses, timeouts."""
    validators = {}
    for name, data in (spec.get("x-amazon-apigateway-request-validators") or {}).items():
        _s, _h, body = v1._create_request_validator(api_id, {"name": name, **data})
        validators[name] = json.loads(body)["id"]
    default = spec.get("x-amazon-apigateway-request-validator")
    for path, item in (spec.get("paths") or {}).items():
        resource = v1._resources[api_id].get(_resource_id(api_id, path)) or {}
        for method, operation in item.items():
            target = (resource.get("resourceMethods") or {}).get(method.upper())
            if target is None:
                continue
            chosen = operation.get("x-amazon-apigateway-request-validator", default)
            if chosen in validators:
                target["requestValidatorId"] = validators[chosen]
            for parameter in (item.get("parameters") or []) + (operation.get("parameters") or []):
                if "$ref" in parameter:
                    parameter = spec["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
                place = {"query": "querystring"}.get(parameter["in"], parameter["in"])
                target["requestParameters"][f"method.request.{place}.{parameter['name']}"] = bool(
                    parameter.get("required")
                )
            wait = (operation.get("x-amazon-apigateway-integration") or {}).get("timeoutInMillis")
            if wait and target.get("methodIntegration"):
                target["methodIntegration"]["timeoutInMillis"] = wait
    for kind, data in (spec.get("x-amazon-apigateway-gateway-responses") or {}).items():
        v1._put_gateway_response(api_id, kind, data)


def _describe(api_id, spec, query):
    api = v1._rest_apis[api_id]
    info = spec.get("info") or {}
    api["name"] = str(info.get("title") or api["name"])
    api["description"] = str(info.get("description") or "")
    api["version"] = str(info.get("version") or "")
    api["binaryMediaTypes"] = spec.get("x-amazon-apigateway-binary-media-types") or []
    kind = _one(query, "endpointConfigurationTypes")
    if kind:
        api["endpointConfiguration"] = {"types": [kind]}
    v1._rest_apis[api_id] = api


def _overwrite(api_id, spec, query):
    if api_id not in v1._rest_apis:
        return v1._v1_error("NotFoundException", "Invalid API identifier specified", 404)
    resources = v1._resources[api_id]
    root = _resource_id(api_id, "/")
    kept = resources[root]
    kept["resourceMethods"] = {}
    v1._resources[api_id] = {root: kept}
    for store in (v1._authorizers_v1, v1._models, v1._gateway_responses, v1._request_validators):
        store[api_id] = {}
    schemes = v1._import_security_schemes(api_id, spec)
    for path, item in (spec.get("paths") or {}).items():
        v1._import_path_item(api_id, path, item, schemes, spec.get("security"))
    _extras(api_id, spec)
    _describe(api_id, spec, query)
    return v1._v1_response(v1._rest_api_view(v1._rest_apis[api_id]), 200)


async def handle_request(method, path, headers, body, query_params):
    parts = [p for p in path.strip("/").split("/") if p]
    if parts[:1] == ["restapis"]:
        if method == "POST" and len(parts) == 1 and _one(query_params, "mode") == "import":
            spec = json.loads(body)
            api_id = v1._import_rest_api(spec)
            _extras(api_id, spec)
            _describe(api_id, spec, query_params)
            return v1._v1_response(v1._rest_api_view(v1._rest_apis[api_id]), 201)
        if method == "PUT" and len(parts) == 2:
            return _overwrite(parts[1], json.loads(body), query_params)
    answer = _original(method, path, headers, body, query_params)
    return await answer if asyncio.iscoroutine(answer) else answer


# TagResource and UntagResource change what GetTags says, but not the `tags` that GetRestApis and GetStage show.
_tag, _untag = v1._tag_v1_resource, v1._untag_v1_resource


def _show_tags(arn):
    parts = arn.split("::/", 1)[-1].split("/")
    if parts[0] != "restapis" or len(parts) not in (2, 4):
        return
    if len(parts) == 2:
        api = v1._rest_apis.get(parts[1])
        if api:
            api["tags"] = dict(v1._v1_tags.get(arn, {}))
            v1._rest_apis[parts[1]] = api
    else:
        stages = v1._stages_v1.get(parts[1], {})
        if parts[3] in stages:
            stages[parts[3]]["tags"] = {**(stages[parts[3]].get("tags") or {}), **v1._v1_tags.get(arn, {})}


def _tag_and_show(arn, data):
    answer = _tag(arn, data)
    _show_tags(arn)
    return answer


def _untag_and_show(arn, keys):
    answer = _untag(arn, keys)
    _show_tags(arn)
    return answer
