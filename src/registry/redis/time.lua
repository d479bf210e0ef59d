only_here()
return {text(now())}
