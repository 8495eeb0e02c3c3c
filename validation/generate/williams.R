# One equation by lme4, two equations with correlated residuals by nlme, on the daily affect of 193 people.
# MLMED_DATA=FOLDER_WITH_williams.csv.gz Rscript validation/generate/williams.R [OUT_DIR] [MODEL ...]
# (default validation/reference, all models: williams_m1_lme4, williams_m2_nlme, williams_m3_nlme)
#
# nlme fits a multivariate model as one response with the responses stacked: random effects of the indicators of the
# responses, a residual variance for each, and a correlation between the two residuals of a day. It stops up to 1e-5
# short of the optimum, and estimates differ there by 1e-4. 'tightened' adds Newton steps on the same criterion,
# written out below from the cross-products of each person; 'criterion_at_nlme' is that criterion where nlme stopped.
suppressMessages({
  library(lme4)
  library(nlme)
  library(jsonlite)
})

SLOPES <- "NA_lag + PA_lag"
LME4 <- 'lmerControl("bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e6), calc.derivs = FALSE)'
# nlminb decides by relative change of the criterion; the defaults stop at 1e-6 or after 50 steps.
NLME <- 'lmeControl(maxIter = 500, msMaxIter = 2000, msMaxEval = 5000, tolerance = 1e-10, msTol = 1e-12, niterEM = 25)'
VERSION <- function(package) sprintf("%s %s, R %s", package, packageVersion(package), getRversion())

daily <- function() {
  d <- read.csv(gzfile(file.path(Sys.getenv("MLMED_DATA"), "williams.csv.gz")))
  d$day_of_person <- seq_len(nrow(d))
  d
}

stacked <- function(d) {
  s <- rbind(transform(d, resp = 1L, z = NA.std), transform(d, resp = 2L, z = PA.std))
  s <- s[order(s$id, s$day_of_person, s$resp), ]
  na <- as.numeric(s$resp == 1L)
  pa <- as.numeric(s$resp == 2L)
  transform(s, na = na, na_NA_lag = na * NA_lag, na_PA_lag = na * PA_lag, pa = pa, pa_NA_lag = pa * NA_lag,
            pa_PA_lag = pa * PA_lag, which = factor(c("NA", "PA")[resp]))
}

write_fit <- function(result, name, out) {
  head <- list(kind = "reference", data = "williams", date = format(Sys.Date()),
               generator = "validation/generate/williams.R", timing = "elapsed, with other work on the machine")
  write_json(c(head, result), file.path(out, paste0(name, ".json")), digits = NA, auto_unbox = TRUE, pretty = TRUE)
  cat(sprintf("%s: log-likelihood %.8f, %.1f s\n", name, result$logLik, result$seconds))
}

m1 <- function(d) {
  text <- sprintf("NA.std ~ %s + (1 + %s | id)", SLOPES, SLOPES)
  seconds <- system.time(f <- lmer(as.formula(text), d, control = eval(parse(text = LME4))))[["elapsed"]]
  for (k in 1:2)  # bobyqa stops early in flat directions; started again where it stopped, it goes on
    f <- lmer(as.formula(text), d, control = eval(parse(text = LME4)), start = getME(f, "theta"))
  list(
    software = VERSION("lme4"), call = paste("lmer REML = TRUE,", LME4, "; started again twice"), formula = text,
    method = "REML", seconds = seconds, logLik = as.numeric(logLik(f)), AIC = AIC(f), n_obs = nobs(f),
    fixef = as.list(fixef(f)), se = as.list(sqrt(diag(as.matrix(vcov(f))))), vcov = unname(as.matrix(vcov(f))),
    G = unname(as.matrix(as.data.frame.matrix(VarCorr(f)$id))), Sigma = matrix(sigma(f)^2)
  )
}

# (NA, PA) by (NA, PA) from the variance function and the correlation of nlme.
residual_matrix <- function(f) {
  ratio <- coef(f$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)[c("NA", "PA")]
  rho <- coef(f$modelStruct$corStruct, unconstrained = FALSE)[[1]]
  sd <- unname(f$sigma * ratio)
  outer(sd, sd) * matrix(c(1, rho, rho, 1), 2)
}

# -2 restricted log-likelihood with the fixed effects and their covariance, from cross-products of (z, NA.std, PA.std).
criterion <- function(products, G, Sigma) {
  k <- nrow(products[[1]]) - 2
  q <- 2 * k
  P <- solve(Sigma)
  XX <- matrix(0, q, q)
  Xy <- numeric(q)
  value <- 0
  for (C in products) {
    A <- kronecker(P, C[1:k, 1:k])
    b <- as.vector(C[1:k, k + 1:2] %*% P)
    M <- diag(q) + G %*% A
    K <- solve(M, G)
    XX <- XX + A - A %*% K %*% A
    Xy <- Xy + b - as.vector(A %*% (K %*% b))
    value <- value + C[1, 1] * determinant(Sigma)$modulus + determinant(M)$modulus +
      sum(P * C[k + 1:2, k + 1:2]) - sum(b * (K %*% b))
  }
  n <- sum(vapply(products, function(C) C[1, 1], 0)) * 2
  beta <- solve(XX, Xy)
  value <- value + determinant(XX)$modulus - sum(beta * Xy) + (n - q) * log(2 * pi)
  list(value = as.numeric(value), beta = beta, vcov = solve(XX))
}

cross_products <- function(d, slopes) {
  columns <- cbind(1, as.matrix(d[c(slopes, "NA.std", "PA.std")]))
  lapply(split.data.frame(columns, d$id), crossprod)
}

tightened <- function(d, slopes, G, Sigma) {
  products <- cross_products(d, slopes)
  q <- nrow(G)
  size <- q * (q + 1) / 2
  triangle <- function(values, n) {
    L <- matrix(0, n, n)
    L[lower.tri(L, diag = TRUE)] <- values
    L %*% t(L)
  }
  at <- function(par) criterion(products, triangle(par[1:size], q), triangle(par[size + 1:3], 2))
  value <- function(par) at(par)$value
  root <- function(V) t(chol(V))[lower.tri(V, diag = TRUE)]
  par <- c(root(G), root(Sigma))
  start <- value(par)
  for (step in 0:5) {
    gradient <- numDeriv::grad(value, par)
    if (max(abs(gradient)) < 1e-4) break  # numerical derivatives know it to about 1e-5
    par <- par - solve(numDeriv::hessian(value, par), gradient)
  }
  end <- at(par)
  list(criterion_at_nlme = -0.5 * start, logLik = -0.5 * end$value, newton_steps = step,
       max_gradient = max(abs(gradient)), fixef = end$beta, se = sqrt(diag(end$vcov)), vcov = end$vcov,
       G = triangle(par[1:size], q), Sigma = triangle(par[size + 1:3], 2))
}

two <- function(d, slopes, formulas) {
  columns <- c(outer(c("", if (length(slopes)) paste0("_", slopes)), c("na", "pa"), function(x, r) paste0(r, x)))
  right <- paste(c("0", columns), collapse = " + ")
  s <- stacked(d)
  seconds <- system.time(f <- lme(
    as.formula(paste("z ~", right)), s, random = as.formula(paste("~", right, "| id")), method = "REML",
    weights = varIdent(form = ~ 1 | which), correlation = corSymm(form = ~ resp | id / day_of_person),
    control = eval(parse(text = NLME))
  ))[["elapsed"]]
  G <- unname(as.matrix(as.data.frame.matrix(getVarCov(f))))
  Sigma <- residual_matrix(f)
  list(
    software = VERSION("nlme"),
    call = paste0("lme(z ~ ", right, ", random = ~ ", right, " | id, weights = varIdent(form = ~ 1 | which), ",
                  "correlation = corSymm(form = ~ resp | id / day_of_person), method = 'REML', control = ", NLME, ")"),
    formulas = formulas, method = "REML", seconds = seconds, logLik = as.numeric(logLik(f)),
    AIC = AIC(f), n_obs = nrow(s), fixef = as.list(fixef(f)), se = as.list(sqrt(diag(vcov(f)))),
    vcov = unname(vcov(f)), G = G, Sigma = Sigma, sd = sqrt(diag(G)), correlations = cov2cor(G),
    residual_sd = sqrt(diag(Sigma)), residual_correlation = cov2cor(Sigma)[1, 2],
    tightened = tightened(d, slopes, G, Sigma)
  )
}

both <- function(right) sprintf(c("NA.std ~ %s", "PA.std ~ %s"), right)
MODELS <- list(
  williams_m1_lme4 = m1,
  williams_m2_nlme = function(d) two(d, c(), both("1 + (1 |c| id)")),
  williams_m3_nlme = function(d)
    two(d, c("NA_lag", "PA_lag"), both(sprintf("%s + (1 + %s |c| id)", SLOPES, SLOPES)))
)

arguments <- commandArgs(TRUE)
out <- if (length(arguments)) arguments[1] else file.path("validation", "reference")
asked <- if (length(arguments) > 1) arguments[-1] else names(MODELS)
d <- daily()
for (name in asked) write_fit(MODELS[[name]](d), name, out)
