/** Users, invitations and where users are signed in, in the style of the rest. */
import { z } from 'zod';
import {
  deleteUserInvitation,
  inviteUser,
  inviteUserInput,
  listUserInvitations,
  listUserInvitationsInput,
  userInvitationIdInput,
} from '../domain/user-invitations.ts';
import {
  endAllUserSessions,
  endAllUserSessionsInput,
  endUserSessionById,
  listUserSessions,
  listUserSessionsInput,
  userSessionIdInput,
} from '../domain/user-sessions.ts';
import {
  deleteUser,
  getUser,
  listUsers,
  listUsersInput,
  setUserEnabled,
  updateUser,
  updateUserInput,
  userIdInput,
} from '../domain/users.ts';
import { at, count, deletedOutput, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const userOutput = named(
  'User',
  z.object({
    id: z.string(),
    source: z.string(),
    sourceSubject: z.string(),
    name: z.string().nullable(),
    email: z.string().nullable(),
    emailVerified: z.boolean(),
    enabled: z.boolean(),
    lastSignedInAt: at.nullable(),
    createdAt: at,
    updatedAt: at,
  }),
);

const invitationOutput = named(
  'UserInvitation',
  z.object({
    id: z.string(),
    userId: z.string().nullable(),
    email: z.string().nullable(),
    name: z.string().nullable(),
    createdAt: at,
    expiresAt: at,
  }),
);

const sessionOutput = named(
  'UserSession',
  z.object({
    id: z.string(),
    subject: z.string(),
    source: z.string(),
    createdAt: at,
    lastSeenAt: at,
    expiresAt: at,
  }),
);

export const userRoutes: readonly Route[] = [
  route('GET /v1/users', 'users.list', {
    input: listUsersInput,
    output: pageOf(userOutput),
    run: ({ deps }, input) => listUsers(deps, input),
  }),
  route('GET /v1/users/{id}', 'users.get', {
    input: userIdInput,
    output: userOutput,
    run: ({ deps }, input) => getUser(deps, input),
  }),
  route('PATCH /v1/users/{id}', 'users.update', {
    input: updateUserInput,
    output: userOutput,
    run: ({ deps, caller }, input) => updateUser(deps, caller, input),
  }),
  route('POST /v1/users/{id}/enable', 'users.enable', {
    input: userIdInput,
    output: userOutput,
    run: ({ deps, caller }, input) => setUserEnabled(deps, caller, input, true),
  }),
  route('POST /v1/users/{id}/disable', 'users.disable', {
    input: userIdInput,
    output: userOutput,
    run: ({ deps, caller }, input) => setUserEnabled(deps, caller, input, false),
  }),
  route('DELETE /v1/users/{id}', 'users.delete', {
    input: userIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => deleteUser(deps, caller, input),
  }),
  route('GET /v1/user_invitations', 'userInvitations.list', {
    input: listUserInvitationsInput,
    output: pageOf(invitationOutput),
    run: ({ deps }, input) => listUserInvitations(deps, input),
  }),
  route('POST /v1/user_invitations', 'users.invite', {
    input: inviteUserInput,
    output: invitationOutput.extend({ link: z.string().optional() }),
    run: ({ deps, caller }, input) => inviteUser(deps, caller, input),
  }),
  route('DELETE /v1/user_invitations/{id}', 'userInvitations.delete', {
    input: userInvitationIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => deleteUserInvitation(deps, caller, input),
  }),
  route('GET /v1/user_sessions', 'userSessions.list', {
    input: listUserSessionsInput,
    output: pageOf(sessionOutput),
    run: ({ deps }, input) => listUserSessions(deps, input),
  }),
  route('POST /v1/user_sessions/end_all', 'userSessions.endAll', {
    input: endAllUserSessionsInput,
    output: z.object({ subject: z.string(), ended: count }),
    run: ({ deps, caller }, input) => endAllUserSessions(deps, caller, input),
  }),
  route('DELETE /v1/user_sessions/{id}', 'userSessions.end', {
    input: userSessionIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => endUserSessionById(deps, caller, input),
  }),
];
