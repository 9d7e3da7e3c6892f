// A real authorization server for the conversation of clients: `oidc-provider`, with registration of clients, PKCE and
// resource indicators, for one resource.
//
//   node authorization-server.mjs PORT RESOURCE
//
// Who logs in says who it is, and is believed. Who begins with `carol` lets a client only read at first, and send when it asks again.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, resource] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const SCOPES = ['mailbox:read', 'mailbox:send', 'mailbox:admin'];

const key = (type, options, more) => ({ ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), use: 'sig', ...more });

const asked = new Set();

const provider = new Provider(issuer, {
  jwks: {
    keys: [
      key('ec', { namedCurve: 'P-256' }, { kid: 'ec', alg: 'ES256' }),
      key('rsa', { modulusLength: 2048 }, { kid: 'rsa', alg: 'RS256' }),
    ],
  },
  cookies: { keys: ['for tests'] },
  clients: [
    {
      client_id: 'robot',
      client_secret: 'a secret of tests, of nobody else',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  scopes: ['openid', 'offline_access', ...SCOPES],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  pkce: { required: () => true },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  // What was agreed to at this very login: somebody who logs in again is asked again.
  loadExistingGrant: ({ oidc }) => oidc.result?.consent && oidc.provider.Grant.find(oidc.result.consent.grantId),
  interactions: { url: (_, { uid }) => `/interaction/${uid}` },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, indicator) => {
        if (indicator !== resource) throw new Error('no such resource');
        return { scope: SCOPES.join(' '), audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'ES256' } } };
      },
    },
  },
});

// A page with a form; what it sends logs in and consents at once.
async function interact(request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method === 'GET') {
    response.setHeader('content-type', 'text/html');
    response.end(`<form method="post" action="${request.url}"><input name="login"></form>`);
    return;
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const accountId = new URLSearchParams(body).get('login');
  const wanted = details.params.scope?.split(' ') ?? [];
  const reluctant = accountId.startsWith('carol') && !asked.has(accountId);
  const given = wanted.filter((scope) => SCOPES.includes(scope) && (!reluctant || scope === 'mailbox:read'));
  const grant = new provider.Grant({ accountId, clientId: details.params.client_id });
  grant.addOIDCScope(wanted.join(' '));
  grant.addResourceScope(resource, given.join(' '));
  // What is neither given nor refused would be asked for once more.
  grant.rejectResourceScope(resource, SCOPES.filter((scope) => !given.includes(scope)).join(' '));
  asked.add(accountId);
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

const callback = provider.callback();
createServer((request, response) => {
  if (!request.url.startsWith('/interaction/')) return callback(request, response);
  return interact(request, response).catch((error) => {
    console.error(error);
    response.statusCode = 500;
    response.end();
  });
}).listen(Number(port), '127.0.0.1', () => console.log(`at ${issuer}`));

provider.on('server_error', (_, error) => console.error(error));
provider.on('authorization.error', (_, error) => console.error(error.message, error.error_description));
provider.on('grant.error', (_, error) => console.error(error.message, error.error_description));
provider.on('registration_create.error', (_, error) => console.error(error.message, error.error_description));
