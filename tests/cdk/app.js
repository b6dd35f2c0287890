// What `compare.py` deploys with the CDK: one region's VPC, table, bucket, function and REST API.
const cdk = require('aws-cdk-lib');
const { aws_ec2: ec2, aws_dynamodb: dynamodb, aws_s3: s3, aws_lambda: lambda, aws_apigateway: apigateway } = cdk;

const app = new cdk.App({ analyticsReporting: false });
const stack = new cdk.Stack(app, 'compared', {
  env: { account: '000000000000', region: 'us-east-1' },
  // Needs no bootstrap stack, because there are no assets.
  synthesizer: new cdk.LegacyStackSynthesizer(),
});
new ec2.Vpc(stack, 'vpc', {
  ipAddresses: ec2.IpAddresses.cidr('10.7.0.0/16'),
  availabilityZones: ['us-east-1a', 'us-east-1b'],
  natGateways: 0,
  restrictDefaultSecurityGroup: false,
  subnetConfiguration: [{ name: 'private', subnetType: ec2.SubnetType.PRIVATE_ISOLATED, cidrMask: 24 }],
});
const table = new dynamodb.Table(stack, 'table', {
  partitionKey: { name: 'id', type: dynamodb.AttributeType.STRING },
  billingMode: dynamodb.BillingMode.PAY_PER_REQUEST,
  removalPolicy: cdk.RemovalPolicy.DESTROY,
});
const bucket = new s3.Bucket(stack, 'bucket', {
  versioned: true,
  encryption: s3.BucketEncryption.S3_MANAGED,
  blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
  removalPolicy: cdk.RemovalPolicy.DESTROY,
});
const handler = new lambda.Function(stack, 'function', {
  runtime: lambda.Runtime.PYTHON_3_11,
  handler: 'index.handler',
  code: lambda.Code.fromInline('def handler(event, context):\n    return {"statusCode": 200, "body": "ok"}\n'),
});
table.grantReadWriteData(handler);
bucket.grantReadWrite(handler);
const api = new apigateway.LambdaRestApi(stack, 'api', { handler, proxy: false, cloudWatchRole: false });
const payments = api.root.addResource('v1').addResource('payments');
payments.addMethod('GET');
payments.addMethod('POST');
payments.addResource('{id}').addMethod('GET');
