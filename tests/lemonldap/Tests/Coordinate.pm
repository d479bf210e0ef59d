package Tests::Coordinate;

# A refresh counts as activity of the session. Without this only the browser's own visits to the portal do.

use Mouse;
use Lemonldap::NG::Portal::Main::Constants qw(PE_OK);

extends 'Lemonldap::NG::Portal::Main::Plugin';

use constant hook => { oidcGotOnlineRefresh => 'touch' };

sub init { 1 }

sub touch {
    my ( $self, $req, $rp, $refresh, $session ) = @_;
    $self->p->updateSession( $req, { _lastSeen => time }, $refresh->{user_session_id} );
    return PE_OK;
}

1;
