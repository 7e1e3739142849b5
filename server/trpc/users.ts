import {
  deleteUserInvitation,
  inviteUser,
  inviteUserInput,
  listUserInvitations,
  listUserInvitationsInput,
  userInvitationIdInput,
} from '../domain/user-invitations.ts';
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
import { procedure, router } from './base.ts';

export const usersRouter = router({
  list: procedure
    .meta({ description: 'List users, the newest first, or the one with a name to sign in with' })
    .input(listUsersInput)
    .query(({ ctx, input }) => listUsers(ctx.deps, input)),
  get: procedure
    .meta({ description: 'Read one user' })
    .input(userIdInput)
    .query(({ ctx, input }) => getUser(ctx.deps, input)),
  invite: procedure
    .meta({
      description: 'Print a link by which somebody becomes a user, or a user sets a new password, once',
    })
    .input(inviteUserInput)
    .mutation(({ ctx, input }) => inviteUser(ctx.deps, ctx.caller, input)),
  update: procedure
    .meta({ description: 'Change what is known of a user' })
    .input(updateUserInput)
    .mutation(({ ctx, input }) => updateUser(ctx.deps, ctx.caller, input)),
  enable: procedure
    .meta({ description: 'Let a user sign in again', idempotent: true })
    .input(userIdInput)
    .mutation(({ ctx, input }) => setUserEnabled(ctx.deps, ctx.caller, input, true)),
  disable: procedure
    .meta({ description: 'Sign a user out, and refuse every token that acts for them', idempotent: true })
    .input(userIdInput)
    .mutation(({ ctx, input }) => setUserEnabled(ctx.deps, ctx.caller, input, false)),
  delete: procedure
    .meta({ description: 'Delete a user with all they allowed applications' })
    .input(userIdInput)
    .mutation(({ ctx, input }) => deleteUser(ctx.deps, ctx.caller, input)),
});

export const userInvitationsRouter = router({
  list: procedure
    .meta({ description: 'List invitations that may still be used' })
    .input(listUserInvitationsInput)
    .query(({ ctx, input }) => listUserInvitations(ctx.deps, input)),
  delete: procedure
    .meta({ description: 'Take an invitation back' })
    .input(userInvitationIdInput)
    .mutation(({ ctx, input }) => deleteUserInvitation(ctx.deps, ctx.caller, input)),
});
